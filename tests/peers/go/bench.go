package main

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"time"

	"go.mau.fi/libsignal/groups"
	"go.mau.fi/libsignal/keys/prekey"
	"go.mau.fi/libsignal/protocol"
	"go.mau.fi/libsignal/session"
)

// work prepares outside the clock and gives the clocked loop and the check of its last result.
type work func(rows, size int) (run func() error, verify func() error, err error)

var works = map[string]work{
	"encrypt/warm": encryptWarm,
	"decrypt/warm": decryptWarm,
	"setup":        setup,
	"turn":         turn,
	"group/open":   groupOpen,
	"group/send":   groupSend,
}

// measure gives nanoseconds per row.
func measure(name string, rows, size int) (float64, error) {
	prepare := works[name]
	if prepare == nil {
		return 0, fmt.Errorf("no bench %s", name)
	}
	if rows < 1 {
		return 0, errors.New("rows must be at least 1")
	}
	run, verify, err := prepare(rows, size)
	if err != nil {
		return 0, err
	}
	runtime.GC()
	begin := time.Now()
	if err := run(); err != nil {
		return 0, err
	}
	elapsed := time.Since(begin)
	if err := verify(); err != nil {
		return 0, err
	}
	return float64(elapsed.Nanoseconds()) / float64(rows), nil
}

// link is a pair of parties; session n of either is with the address n, its ciphers ready.
type link struct {
	near, far               *party
	nearCiphers, farCiphers []*session.Cipher
	addresses               []*protocol.SignalAddress
	message                 []byte
}

type frame struct {
	kind string
	data []byte
}

func newLink(rows, size int) (*link, error) {
	near, err := newParty(true)
	if err != nil {
		return nil, err
	}
	far, err := newParty(true)
	if err != nil {
		return nil, err
	}
	l := &link{near: near, far: far, message: bytes.Repeat([]byte{0x5a}, size)}
	for n := range rows {
		address := protocol.NewSignalAddress(fmt.Sprintf("p%d", n), 1)
		l.addresses = append(l.addresses, address)
		l.nearCiphers = append(l.nearCiphers, near.cipher(address))
		l.farCiphers = append(l.farCiphers, far.cipher(address))
	}
	return l, nil
}

// bundles are n of one signed prekey, each with its one-time prekey.
func (l *link) bundles(count int) ([]*prekey.Bundle, error) {
	signed, err := l.far.publishSigned()
	if err != nil {
		return nil, err
	}
	made := make([]*prekey.Bundle, count)
	for n := range made {
		oneTime, err := l.far.publishOneTime()
		if err != nil {
			return nil, err
		}
		made[n], err = nativeBundle(&wireBundle{
			RegistrationID: l.far.registrationID, DeviceID: 1, Identity: l.far.key.PublicKey().Serialize(),
			SignedPrekey: *signed, OneTimePrekey: oneTime,
		})
		if err != nil {
			return nil, err
		}
	}
	return made, nil
}

func (l *link) builder(n int) *session.Builder {
	return session.NewBuilderFromSignal(l.near, l.addresses[n], wire)
}

func (l *link) send(cipher *session.Cipher) (frame, error) {
	message, err := cipher.Encrypt(ctx, l.message)
	if err != nil {
		return frame{}, err
	}
	return frame{kindOf(message), message.Serialize()}, nil
}

func (l *link) check(plaintext []byte) error {
	if !bytes.Equal(plaintext, l.message) {
		return errors.New("the last result is wrong")
	}
	return nil
}

func (l *link) deliver(to *party, cipher *session.Cipher, sent frame) error {
	plaintext, err := to.decrypt(cipher, sent.kind, sent.data)
	if err != nil {
		return err
	}
	return l.check(plaintext)
}

func (l *link) exchange(n int, fromNear bool) error {
	from, to, receiver := l.nearCiphers[n], l.farCiphers[n], l.far
	if !fromNear {
		from, to, receiver = l.farCiphers[n], l.nearCiphers[n], l.near
	}
	sent, err := l.send(from)
	if err != nil {
		return err
	}
	return l.deliver(receiver, to, sent)
}

// warmLink has every session acknowledged in both directions; near has just sent on a chain that far follows.
func warmLink(rows, size int) (*link, error) {
	l, err := newLink(rows, size)
	if err != nil {
		return nil, err
	}
	bundles, err := l.bundles(rows)
	if err != nil {
		return nil, err
	}
	for n, bundle := range bundles {
		if err := l.builder(n).ProcessBundle(ctx, bundle); err != nil {
			return nil, err
		}
		for _, fromNear := range []bool{true, false, true} {
			if err := l.exchange(n, fromNear); err != nil {
				return nil, err
			}
		}
	}
	return l, nil
}

func (l *link) sendAll(ciphers []*session.Cipher) ([]frame, error) {
	frames := make([]frame, len(ciphers))
	for n, cipher := range ciphers {
		var err error
		if frames[n], err = l.send(cipher); err != nil {
			return nil, err
		}
	}
	return frames, nil
}

func encryptWarm(rows, size int) (func() error, func() error, error) {
	l, err := warmLink(rows, size)
	var last frame
	run := func() (err error) {
		for _, cipher := range l.nearCiphers {
			if last, err = l.send(cipher); err != nil {
				return err
			}
		}
		return nil
	}
	return run, func() error { return l.deliver(l.far, l.farCiphers[rows-1], last) }, err
}

func decryptWarm(rows, size int) (func() error, func() error, error) {
	l, err := warmLink(rows, size)
	if err != nil {
		return nil, nil, err
	}
	frames, err := l.sendAll(l.nearCiphers)
	var last []byte
	run := func() (err error) {
		for n, sent := range frames {
			if last, err = l.far.decrypt(l.farCiphers[n], sent.kind, sent.data); err != nil {
				return err
			}
		}
		return nil
	}
	return run, func() error { return l.check(last) }, err
}

func setup(rows, size int) (func() error, func() error, error) {
	l, err := newLink(rows, size)
	if err != nil {
		return nil, nil, err
	}
	bundles, err := l.bundles(rows)
	var last frame
	run := func() (err error) {
		for n, bundle := range bundles {
			if err = l.builder(n).ProcessBundle(ctx, bundle); err != nil {
				return err
			}
			if last, err = l.send(l.nearCiphers[n]); err != nil {
				return err
			}
		}
		return nil
	}
	return run, func() error { return l.deliver(l.far, l.farCiphers[rows-1], last) }, err
}

func turn(rows, size int) (func() error, func() error, error) {
	l, err := warmLink(rows, size)
	if err != nil {
		return nil, nil, err
	}
	frames, err := l.sendAll(l.farCiphers)
	var opened []byte
	var last frame
	run := func() (err error) {
		for n, sent := range frames {
			if opened, err = l.near.decrypt(l.nearCiphers[n], sent.kind, sent.data); err != nil {
				return err
			}
			if last, err = l.send(l.nearCiphers[n]); err != nil {
				return err
			}
		}
		return nil
	}
	verify := func() error {
		if err := l.check(opened); err != nil {
			return err
		}
		return l.deliver(l.far, l.farCiphers[rows-1], last)
	}
	return run, verify, err
}

// groupLink has one sender key a row: the groups of one sender, or the senders of one group, are the same work.
func groupLink(rows, size int) (l *link, sending, opening []*groups.GroupCipher, err error) {
	if l, err = newLink(0, size); err != nil {
		return nil, nil, nil, err
	}
	for n := range rows {
		name := fmt.Sprintf("group-%d", n)
		distribution, err := l.near.distribute(name)
		if err != nil {
			return nil, nil, nil, err
		}
		if err := l.far.accept(name, ownName, distribution); err != nil {
			return nil, nil, nil, err
		}
		sending = append(sending, l.near.groupCipher(name, ownName))
		opening = append(opening, l.far.groupCipher(name, ownName))
	}
	return l, sending, opening, nil
}

func groupOpen(rows, size int) (func() error, func() error, error) {
	l, sending, opening, err := groupLink(rows, size)
	if err != nil {
		return nil, nil, err
	}
	frames := make([][]byte, rows)
	for n, cipher := range sending {
		message, err := cipher.Encrypt(ctx, l.message)
		if err != nil {
			return nil, nil, err
		}
		frames[n] = message.SignedSerialize()
	}
	var last []byte
	run := func() (err error) {
		for n, sent := range frames {
			if last, err = l.far.groupDecrypt(opening[n], sent); err != nil {
				return err
			}
		}
		return nil
	}
	return run, func() error { return l.check(last) }, nil
}

func groupSend(rows, size int) (func() error, func() error, error) {
	l, sending, opening, err := groupLink(rows, size)
	if err != nil {
		return nil, nil, err
	}
	var last []byte
	run := func() error {
		for _, cipher := range sending {
			message, err := cipher.Encrypt(ctx, l.message)
			if err != nil {
				return err
			}
			last = message.SignedSerialize()
		}
		return nil
	}
	verify := func() error {
		plaintext, err := l.far.groupDecrypt(opening[rows-1], last)
		if err != nil {
			return err
		}
		return l.check(plaintext)
	}
	return run, verify, nil
}
