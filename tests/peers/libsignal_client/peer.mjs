// @signalapp/libsignal-client: pairwise only. Its sender-key messages have Signal's format, not WhatsApp's.
import { createRequire } from 'node:module';
import { benches, entry, Refusal, serve } from '../lines.mjs';

const require = createRequire(import.meta.url);
const signal = require('@signalapp/libsignal-client');
const { version } = require('@signalapp/libsignal-client/package.json');

const { PublicKey, PrivateKey, ProtocolAddress, SignalMessage, PreKeySignalMessage, CiphertextMessageType } = signal;
const nameOf = (address) => `${address.name()}.${address.deviceId()}`;

class Sessions extends signal.SessionStore {
  records = new Map();
  async saveSession(address, record) { this.records.set(nameOf(address), record); }
  async getSession(address) { return this.records.get(nameOf(address)) ?? null; }
  async getExistingSessions(addresses) { return addresses.map((address) => this.records.get(nameOf(address))); }
}

// Trust on first use, as the library's own documentation asks of a store.
class Identities extends signal.IdentityKeyStore {
  own = PrivateKey.generate();
  registrationId = 1 + Math.floor(Math.random() * 16380);
  known = new Map();
  async getIdentityKey() { return this.own; }
  async getLocalRegistrationId() { return this.registrationId; }
  async saveIdentity(address, key) {
    const before = this.known.get(nameOf(address));
    this.known.set(nameOf(address), key);
    return before !== undefined && before.compare(key) !== 0;
  }
  async isTrustedIdentity(address, key) {
    const before = this.known.get(nameOf(address));
    return before === undefined || before.compare(key) === 0;
  }
  async getIdentity(address) { return this.known.get(nameOf(address)) ?? null; }
}

class Prekeys extends signal.PreKeyStore {
  records = new Map();
  async savePreKey(id, record) { this.records.set(id, record); }
  async getPreKey(id) {
    if (!this.records.has(id)) throw new Refusal(`no one-time prekey ${id}`);
    return this.records.get(id);
  }
  async removePreKey(id) { this.records.delete(id); }
}

class SignedPrekeys extends signal.SignedPreKeyStore {
  records = new Map();
  async saveSignedPreKey(id, record) { this.records.set(id, record); }
  async getSignedPreKey(id) {
    if (!this.records.has(id)) throw new Refusal(`no signed prekey ${id}`);
    return this.records.get(id);
  }
}

class Party {
  sessions = new Sessions();
  identities = new Identities();
  prekeys = new Prekeys();
  signedPrekeys = new SignedPrekeys();
  addresses = new Map();
  lastId = 0;
  get identity() { return this.identities.own.getPublicKey().serialize(); }
  get registrationId() { return this.identities.registrationId; }
  address(peer) { return entry(this.addresses, peer, () => ProtocolAddress.new(peer, 1)); }
}

async function publishSigned(party) {
  const key = PrivateKey.generate();
  const id = (party.lastId += 1);
  const signature = party.identities.own.sign(key.getPublicKey().serialize());
  const record = signal.SignedPreKeyRecord.new(id, Date.now(), key.getPublicKey(), key, signature);
  await party.signedPrekeys.saveSignedPreKey(id, record);
  return { id, public: key.getPublicKey().serialize(), signature };
}

async function publishOneTime(party) {
  const key = PrivateKey.generate();
  const id = (party.lastId += 1);
  await party.prekeys.savePreKey(id, signal.PreKeyRecord.new(id, key.getPublicKey(), key));
  return { id, public: key.getPublicKey().serialize() };
}

const encrypt = (party, address, plaintext) =>
  signal.signalEncrypt(plaintext, address, party.sessions, party.identities);
const open = (party, address, frame) =>
  signal.signalDecrypt(SignalMessage.deserialize(frame), address, party.sessions, party.identities);
const openFirst = (party, address, frame) =>
  signal.signalDecryptPreKey(
    PreKeySignalMessage.deserialize(frame), address, party.sessions, party.identities, party.prekeys, party.signedPrekeys,
  );
const isFirst = (message) => message.type() === CiphertextMessageType.PreKey;
const start = (party, address, bundle) =>
  signal.processPreKeyBundle(nativeBundle(bundle), address, party.sessions, party.identities);

function nativeBundle({ registrationId, deviceId, identity, signedPrekey, oneTimePrekey }) {
  return signal.PreKeyBundle.new(
    registrationId,
    deviceId,
    oneTimePrekey?.id ?? null,
    oneTimePrekey ? PublicKey.deserialize(oneTimePrekey.public) : null,
    signedPrekey.id,
    PublicKey.deserialize(signedPrekey.public),
    signedPrekey.signature,
    PublicKey.deserialize(identity),
  );
}

const peer = {
  bundle: async (party, oneTime) => ({
    registrationId: party.registrationId,
    identity: party.identity,
    signedPrekey: await publishSigned(party),
    oneTimePrekey: oneTime ? await publishOneTime(party) : null,
  }),
  start: (party, name, bundle) => start(party, party.address(name), bundle),
  encrypt: async (party, name, plaintext) => {
    const message = await encrypt(party, party.address(name), plaintext);
    return { kind: isFirst(message) ? 'pkmsg' : 'msg', frame: message.serialize() };
  },
  decrypt: (party, name, kind, frame) => (kind === 'pkmsg' ? openFirst : open)(party, party.address(name), frame),
};

const works = benches({
  begin: async () => new Party(),
  prepare: (name) => ProtocolAddress.new(name, 1),
  publish: async (party) => {
    party.benchPrekey ??= await publishSigned(party);
    return {
      registrationId: party.registrationId,
      deviceId: 1,
      identity: party.identity,
      signedPrekey: party.benchPrekey,
      oneTimePrekey: await publishOneTime(party),
    };
  },
  start,
  encrypt: async (party, address, plaintext) => {
    const message = await encrypt(party, address, plaintext);
    return { first: isFirst(message), frame: message.serialize() };
  },
  decrypt: (party, address, { first, frame }) => (first ? openFirst : open)(party, address, frame),
});

await serve({ name: '@signalapp/libsignal-client', version, can: ['pairwise'], makeParty: async () => new Party(), peer, works });
