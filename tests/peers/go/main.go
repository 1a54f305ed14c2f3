// Command peer speaks the peer protocol on go.mau.fi/libsignal: pairwise sessions and WhatsApp's sender keys.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"go.mau.fi/libsignal/ecc"
	"go.mau.fi/libsignal/groups"
	"go.mau.fi/libsignal/keys/identity"
	"go.mau.fi/libsignal/keys/prekey"
	"go.mau.fi/libsignal/logger"
	"go.mau.fi/libsignal/protocol"
	"go.mau.fi/libsignal/session"
	"go.mau.fi/libsignal/util/optional"
)

const modulePath = "go.mau.fi/libsignal"

// request has every field of every operation; encoding/json turns base64 into []byte.
type request struct {
	Op        string      `json:"op"`
	Who       string      `json:"who"`
	Peer      string      `json:"peer"`
	OneTime   *bool       `json:"one_time"`
	Bundle    *wireBundle `json:"bundle"`
	Plaintext []byte      `json:"plaintext"`
	Kind      string      `json:"kind"`
	Frame     []byte      `json:"frame"`
	Group     string      `json:"group"`
	Work      string      `json:"work"`
	Rows      int         `json:"rows"`
	Bytes     *int        `json:"bytes"`
}

type wireBundle struct {
	RegistrationID uint32       `json:"registration_id"`
	DeviceID       uint32       `json:"device_id"`
	Identity       []byte       `json:"identity"`
	SignedPrekey   signedPrekey `json:"signed_prekey"`
	OneTimePrekey  *wirePrekey  `json:"one_time_prekey"`
}

type signedPrekey struct {
	ID        uint32 `json:"id"`
	Public    []byte `json:"public"`
	Signature []byte `json:"signature"`
}

type wirePrekey struct {
	ID     uint32 `json:"id"`
	Public []byte `json:"public"`
}

type reply map[string]any

var ok = reply{"ok": true}

// silent drops the library's diagnostics, which it would print on standard output: that is the protocol's.
type silent struct{}

func (silent) Debug(_, _ string)   {}
func (silent) Info(_, _ string)    {}
func (silent) Warning(_, _ string) {}
func (silent) Error(_, _ string)   {}
func (silent) Configure(string)    {}

func main() {
	quiet := logger.Loggable(silent{})
	logger.Setup(&quiet)
	parties := map[string]*party{}
	input := bufio.NewReaderSize(os.Stdin, 1<<16)
	output := bufio.NewWriter(os.Stdout)
	for {
		line, err := input.ReadBytes('\n')
		if len(line) > 0 {
			encoded, failure := json.Marshal(answer(parties, line))
			if failure != nil {
				fmt.Fprintln(os.Stderr, failure)
				os.Exit(1)
			}
			output.Write(append(encoded, '\n'))
			output.Flush()
		}
		if err != nil {
			return
		}
	}
}

// answer never ends the process: the library panics on some malformed frames.
func answer(parties map[string]*party, line []byte) (result any) {
	defer func() {
		if reason := recover(); reason != nil {
			result = reply{"error": fmt.Sprintf("panic: %v", reason)}
		}
	}()
	var asked request
	if err := json.Unmarshal(line, &asked); err != nil {
		return reply{"error": err.Error()}
	}
	result, err := perform(parties, &asked)
	if err != nil {
		return reply{"error": err.Error()}
	}
	return result
}

func perform(parties map[string]*party, asked *request) (any, error) {
	switch asked.Op {
	case "hello":
		return reply{"name": modulePath, "version": version(), "can": []string{"pairwise", "group", "bench"}}, nil
	case "party":
		if parties[asked.Who] == nil {
			made, err := newParty(false)
			if err != nil {
				return nil, err
			}
			parties[asked.Who] = made
		}
		own := parties[asked.Who]
		return reply{"identity": own.key.PublicKey().Serialize(), "registration_id": own.registrationID}, nil
	case "bench":
		size := 256
		if asked.Bytes != nil {
			size = *asked.Bytes
		}
		ns, err := measure(asked.Work, asked.Rows, size)
		return reply{"ns": ns}, err
	}
	own := parties[asked.Who]
	if own == nil {
		return nil, fmt.Errorf("no party %s", asked.Who)
	}
	switch asked.Op {
	case "bundle":
		return own.publish(asked.OneTime == nil || *asked.OneTime)
	case "start":
		if asked.Bundle == nil {
			return nil, errors.New("no bundle")
		}
		return ok, own.start(own.address(asked.Peer), asked.Bundle)
	case "encrypt":
		message, err := own.cipher(own.address(asked.Peer)).Encrypt(ctx, asked.Plaintext)
		if err != nil {
			return nil, err
		}
		return reply{"kind": kindOf(message), "frame": message.Serialize()}, nil
	case "decrypt":
		plaintext, err := own.decrypt(own.cipher(own.address(asked.Peer)), asked.Kind, asked.Frame)
		return reply{"plaintext": filled(plaintext)}, err
	case "group_distribute":
		message, err := own.distribute(asked.Group)
		if err != nil {
			return nil, err
		}
		return reply{"frame": message}, nil
	case "group_accept":
		return ok, own.accept(asked.Group, asked.Peer, asked.Frame)
	case "group_encrypt":
		message, err := own.groupCipher(asked.Group, ownName).Encrypt(ctx, asked.Plaintext)
		if err != nil {
			return nil, err
		}
		return reply{"frame": message.SignedSerialize()}, nil
	case "group_decrypt":
		plaintext, err := own.groupDecrypt(own.groupCipher(asked.Group, asked.Peer), asked.Frame)
		return reply{"plaintext": filled(plaintext)}, err
	case "group_rotate":
		delete(own.senderKeys, nameOf(senderKeyName(asked.Group, ownName)))
		return ok, nil
	}
	return nil, fmt.Errorf("no operation %s", asked.Op)
}

var ctx = context.Background()

func version() string {
	if build, found := debug.ReadBuildInfo(); found {
		for _, module := range build.Deps {
			if module.Path == modulePath {
				return module.Version
			}
		}
	}
	return "unknown"
}

// filled keeps an empty plaintext from becoming null.
func filled(data []byte) []byte {
	if data == nil {
		return []byte{}
	}
	return data
}

func kindOf(message protocol.CiphertextMessage) string {
	if message.Type() == protocol.PREKEY_TYPE {
		return "pkmsg"
	}
	return "msg"
}

func (p *party) address(name string) *protocol.SignalAddress {
	return protocol.NewSignalAddress(name, 1)
}

func (p *party) cipher(address *protocol.SignalAddress) *session.Cipher {
	return session.NewCipher(session.NewBuilderFromSignal(p, address, wire), address)
}

func (p *party) publish(oneTime bool) (*wireBundle, error) {
	signed, err := p.publishSigned()
	if err != nil {
		return nil, err
	}
	bundle := &wireBundle{
		RegistrationID: p.registrationID, DeviceID: 1, Identity: p.key.PublicKey().Serialize(), SignedPrekey: *signed,
	}
	if oneTime {
		bundle.OneTimePrekey, err = p.publishOneTime()
	}
	return bundle, err
}

func (p *party) start(address *protocol.SignalAddress, bundle *wireBundle) error {
	native, err := nativeBundle(bundle)
	if err != nil {
		return err
	}
	return session.NewBuilderFromSignal(p, address, wire).ProcessBundle(ctx, native)
}

func nativeBundle(bundle *wireBundle) (*prekey.Bundle, error) {
	if len(bundle.SignedPrekey.Signature) != 64 {
		return nil, errors.New("a signature has 64 bytes")
	}
	identityKey, err := ecc.DecodePoint(bundle.Identity, 0)
	if err != nil {
		return nil, err
	}
	signed, err := ecc.DecodePoint(bundle.SignedPrekey.Public, 0)
	if err != nil {
		return nil, err
	}
	id, oneTime := optional.NewEmptyUint32(), ecc.ECPublicKeyable(nil)
	if bundle.OneTimePrekey != nil {
		id = optional.NewOptionalUint32(bundle.OneTimePrekey.ID)
		if oneTime, err = ecc.DecodePoint(bundle.OneTimePrekey.Public, 0); err != nil {
			return nil, err
		}
	}
	return prekey.NewBundle(
		bundle.RegistrationID, bundle.DeviceID, id, bundle.SignedPrekey.ID, oneTime, signed,
		[64]byte(bundle.SignedPrekey.Signature), identity.NewKey(identityKey),
	), nil
}

func (p *party) decrypt(cipher *session.Cipher, kind string, frame []byte) ([]byte, error) {
	if kind == "pkmsg" {
		message, err := protocol.NewPreKeySignalMessageFromBytes(frame, wire.PreKeySignalMessage, wire.SignalMessage)
		if err != nil {
			return nil, err
		}
		return cipher.DecryptMessage(ctx, message)
	}
	message, err := protocol.NewSignalMessageFromBytes(frame, wire.SignalMessage)
	if err != nil {
		return nil, err
	}
	return cipher.Decrypt(ctx, message)
}

const ownName = "self"

func senderKeyName(group, name string) *protocol.SenderKeyName {
	return protocol.NewSenderKeyName(group, protocol.NewSignalAddress(name, 1))
}

func (p *party) groupCipher(group, name string) *groups.GroupCipher {
	return groups.NewGroupCipher(groups.NewGroupSessionBuilder(p, wire), senderKeyName(group, name), p)
}

func (p *party) distribute(group string) ([]byte, error) {
	message, err := groups.NewGroupSessionBuilder(p, wire).Create(ctx, senderKeyName(group, ownName))
	if err != nil {
		return nil, err
	}
	return message.Serialize(), nil
}

func (p *party) accept(group, name string, frame []byte) error {
	message, err := protocol.NewSenderKeyDistributionMessageFromBytes(frame, wire.SenderKeyDistributionMessage)
	if err != nil {
		return err
	}
	return groups.NewGroupSessionBuilder(p, wire).Process(ctx, senderKeyName(group, name), message)
}

func (p *party) groupDecrypt(cipher *groups.GroupCipher, frame []byte) ([]byte, error) {
	message, err := protocol.NewSenderKeyMessageFromBytes(frame, wire.SenderKeyMessage)
	if err != nil {
		return nil, err
	}
	return cipher.Decrypt(ctx, message)
}
