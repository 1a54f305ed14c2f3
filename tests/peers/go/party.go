package main

import (
	"context"
	"errors"

	"go.mau.fi/libsignal/ecc"
	groupRecord "go.mau.fi/libsignal/groups/state/record"
	"go.mau.fi/libsignal/keys/identity"
	"go.mau.fi/libsignal/protocol"
	"go.mau.fi/libsignal/serialize"
	"go.mau.fi/libsignal/state/record"
	"go.mau.fi/libsignal/util/keyhelper"
)

var wire = serialize.NewProtoBufSerializer()

// party is one account with its store in memory. A refused frame may have touched the record that the library was
// given, so records are kept as bytes, as whatsmeow does; the benches keep the live records.
type party struct {
	live           bool
	key            *identity.KeyPair
	registrationID uint32
	lastID         uint32
	identities     map[protocol.SignalAddress]string
	prekeys        map[uint32]*record.PreKey
	signedPrekeys  map[uint32]*record.SignedPreKey
	sessions       map[protocol.SignalAddress][]byte
	liveSessions   map[protocol.SignalAddress]*record.Session
	senderKeys     map[string][]byte
	liveSenderKeys map[string]*groupRecord.SenderKey
}

func newParty(live bool) (*party, error) {
	key, err := keyhelper.GenerateIdentityKeyPair()
	return &party{
		live:           live,
		key:            key,
		registrationID: keyhelper.GenerateRegistrationID(),
		identities:     map[protocol.SignalAddress]string{},
		prekeys:        map[uint32]*record.PreKey{},
		signedPrekeys:  map[uint32]*record.SignedPreKey{},
		sessions:       map[protocol.SignalAddress][]byte{},
		liveSessions:   map[protocol.SignalAddress]*record.Session{},
		senderKeys:     map[string][]byte{},
		liveSenderKeys: map[string]*groupRecord.SenderKey{},
	}, err
}

func (p *party) publishSigned() (*signedPrekey, error) {
	p.lastID++
	made, err := keyhelper.GenerateSignedPreKey(p.key, p.lastID, wire.SignedPreKeyRecord)
	if err != nil {
		return nil, err
	}
	p.signedPrekeys[p.lastID] = made
	signature := made.Signature()
	return &signedPrekey{ID: p.lastID, Public: made.KeyPair().PublicKey().Serialize(), Signature: signature[:]}, nil
}

func (p *party) publishOneTime() (*wirePrekey, error) {
	p.lastID++
	pair, err := ecc.GenerateKeyPair()
	if err != nil {
		return nil, err
	}
	p.prekeys[p.lastID] = record.NewPreKey(p.lastID, pair, wire.PreKeyRecord)
	return &wirePrekey{ID: p.lastID, Public: pair.PublicKey().Serialize()}, nil
}

func (p *party) GetIdentityKeyPair() *identity.KeyPair { return p.key }

func (p *party) GetLocalRegistrationID() uint32 { return p.registrationID }

func (p *party) SaveIdentity(_ context.Context, address *protocol.SignalAddress, key *identity.Key) error {
	p.identities[*address] = string(key.Serialize())
	return nil
}

// IsTrustedIdentity is trust on first use, as the library's interface asks.
func (p *party) IsTrustedIdentity(_ context.Context, address *protocol.SignalAddress, key *identity.Key) (bool, error) {
	known, found := p.identities[*address]
	return !found || known == string(key.Serialize()), nil
}

func (p *party) LoadPreKey(_ context.Context, id uint32) (*record.PreKey, error) {
	return p.prekeys[id], nil
}

func (p *party) StorePreKey(_ context.Context, id uint32, prekey *record.PreKey) error {
	p.prekeys[id] = prekey
	return nil
}

func (p *party) ContainsPreKey(_ context.Context, id uint32) (bool, error) {
	return p.prekeys[id] != nil, nil
}

func (p *party) RemovePreKey(_ context.Context, id uint32) error {
	delete(p.prekeys, id)
	return nil
}

func (p *party) LoadSignedPreKey(_ context.Context, id uint32) (*record.SignedPreKey, error) {
	found := p.signedPrekeys[id]
	if found == nil {
		return nil, errors.New("no such signed prekey")
	}
	return found, nil
}

func (p *party) LoadSignedPreKeys(context.Context) ([]*record.SignedPreKey, error) {
	all := make([]*record.SignedPreKey, 0, len(p.signedPrekeys))
	for _, prekey := range p.signedPrekeys {
		all = append(all, prekey)
	}
	return all, nil
}

func (p *party) StoreSignedPreKey(_ context.Context, id uint32, prekey *record.SignedPreKey) error {
	p.signedPrekeys[id] = prekey
	return nil
}

func (p *party) ContainsSignedPreKey(_ context.Context, id uint32) (bool, error) {
	return p.signedPrekeys[id] != nil, nil
}

func (p *party) RemoveSignedPreKey(_ context.Context, id uint32) error {
	delete(p.signedPrekeys, id)
	return nil
}

func (p *party) LoadSession(_ context.Context, address *protocol.SignalAddress) (*record.Session, error) {
	if p.live {
		if found := p.liveSessions[*address]; found != nil {
			return found, nil
		}
	} else if kept := p.sessions[*address]; kept != nil {
		return record.NewSessionFromBytes(kept, wire.Session, wire.State)
	}
	return record.NewSession(wire.Session, wire.State), nil
}

func (p *party) StoreSession(_ context.Context, address *protocol.SignalAddress, session *record.Session) error {
	if p.live {
		p.liveSessions[*address] = session
	} else {
		p.sessions[*address] = session.Serialize()
	}
	return nil
}

func (p *party) ContainsSession(_ context.Context, address *protocol.SignalAddress) (bool, error) {
	return p.sessions[*address] != nil || p.liveSessions[*address] != nil, nil
}

func (p *party) GetSubDeviceSessions(context.Context, string) ([]uint32, error) { return nil, nil }

func (p *party) DeleteSession(_ context.Context, address *protocol.SignalAddress) error {
	delete(p.sessions, *address)
	delete(p.liveSessions, *address)
	return nil
}

func (p *party) DeleteAllSessions(context.Context) error {
	clear(p.sessions)
	clear(p.liveSessions)
	return nil
}

func nameOf(name *protocol.SenderKeyName) string {
	return name.GroupID() + "\x00" + name.Sender().String()
}

func (p *party) StoreSenderKey(_ context.Context, name *protocol.SenderKeyName, key *groupRecord.SenderKey) error {
	if p.live {
		p.liveSenderKeys[nameOf(name)] = key
	} else {
		p.senderKeys[nameOf(name)] = key.Serialize()
	}
	return nil
}

func (p *party) LoadSenderKey(_ context.Context, name *protocol.SenderKeyName) (*groupRecord.SenderKey, error) {
	if p.live {
		if found := p.liveSenderKeys[nameOf(name)]; found != nil {
			return found, nil
		}
	} else if kept := p.senderKeys[nameOf(name)]; kept != nil {
		return groupRecord.NewSenderKeyFromBytes(kept, wire.SenderKeyRecord, wire.SenderKeyState)
	}
	return groupRecord.NewSenderKey(wire.SenderKeyRecord, wire.SenderKeyState), nil
}
