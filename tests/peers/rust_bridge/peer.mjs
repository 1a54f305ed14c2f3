// whatsapp-rust-bridge: a Rust engine as WebAssembly; pairwise and WhatsApp's sender keys.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import * as bridge from 'whatsapp-rust-bridge';
import { OWN, engine, entry, serve, undotted } from '../lines.mjs';

const entryPoint = createRequire(import.meta.url).resolve('whatsapp-rust-bridge');
const { version } = JSON.parse(readFileSync(new URL('../package.json', `file://${entryPoint}`)));
const { ProtocolAddress, SessionBuilder, SessionCipher } = bridge;
const { GroupCipher, GroupSessionBuilder, SenderKeyDistributionMessage, SenderKeyName } = bridge;

class Party {
  key = bridge.generateIdentityKeyPair();
  registrationId = bridge.generateRegistrationId();
  sessions = new Map();
  prekeys = new Map();
  signedPrekeys = new Map();
  senderKeys = new Map();
  ciphers = new Map();
  addresses = new Map();
  lastId = 0;
  storage = {
    loadSession: (address) => this.sessions.get(address),
    storeSession: (address, record) => { this.sessions.set(address, record.serialize()); },
    getOurIdentity: () => this.key,
    getOurRegistrationId: () => this.registrationId,
    isTrustedIdentity: () => true,
    loadPreKey: (id) => this.prekeys.get(id),
    removePreKey: (id) => { this.prekeys.delete(id); },
    loadSignedPreKey: (id) => this.signedPrekeys.get(id),
    loadSenderKey: (name) => this.senderKeys.get(name),
    storeSenderKey: (name, record) => { this.senderKeys.set(name, record); },
  };
  constructor({ live = false } = {}) { this.live = live; }
  get identity() { return this.key.pubKey; }
  address(name) { return entry(this.addresses, name, () => addressOf(name)); }
}

const addressOf = (name) => new ProtocolAddress(undotted(name), 1);

function publishSigned(party) {
  const id = (party.lastId += 1);
  const record = bridge.generateSignedPreKey(party.key, id);
  party.signedPrekeys.set(id, record);
  return { id, public: record.keyPair.pubKey, signature: record.signature };
}

function publishOneTime(party) {
  const id = (party.lastId += 1);
  const { keyPair } = bridge.generatePreKey(id);
  party.prekeys.set(id, keyPair);
  return { id, public: keyPair.pubKey };
}

async function start(party, address, { registrationId, identity, signedPrekey, oneTimePrekey }) {
  const builder = new SessionBuilder(party.storage, address);
  try {
    await builder.processPreKeyBundle({
      registrationId,
      identityKey: identity,
      signedPreKey: { keyId: signedPrekey.id, publicKey: signedPrekey.public, signature: signedPrekey.signature },
      preKey: oneTimePrekey ? { keyId: oneTimePrekey.id, publicKey: oneTimePrekey.public } : undefined,
    });
  } finally {
    builder.free();
  }
}

// A cipher keeps the record that it has loaded, and does not see one that a builder has stored since. So each operation
// has its own, as in Baileys; the benches, which start no session twice, keep one a session.
async function withCipher(party, address, operation) {
  if (party.live) return operation(entry(party.ciphers, address, () => new SessionCipher(party.storage, address)));
  const cipher = new SessionCipher(party.storage, address);
  try {
    return await operation(cipher);
  } finally {
    cipher.free();
  }
}

async function encrypt(party, address, plaintext) {
  const { type, body } = await withCipher(party, address, (cipher) => cipher.encrypt(plaintext));
  return { kind: type === 3 ? 'pkmsg' : 'msg', frame: body };
}

const decrypt = (party, address, kind, frame) =>
  withCipher(party, address, (cipher) =>
    kind === 'pkmsg' ? cipher.decryptPreKeyWhisperMessage(frame) : cipher.decryptWhisperMessage(frame),
  );

const cipherOf = (party, groupId, name) => new GroupCipher(party.storage, groupId, addressOf(name));
const distribute = (party, groupId) =>
  new GroupSessionBuilder(party.storage).create(new SenderKeyName(groupId, addressOf(OWN)));
const accept = (party, groupId, name, frame) =>
  new GroupSessionBuilder(party.storage).process(
    new SenderKeyName(groupId, addressOf(name)), SenderKeyDistributionMessage.deserialize(frame),
  );

const rotate = (party, groupId) => party.senderKeys.delete(new SenderKeyName(groupId, addressOf(OWN)).toString());

await serve({
  name: 'whatsapp-rust-bridge',
  version,
  can: ['pairwise', 'group'],
  makeParty: async () => new Party(),
  ...engine({
    Party,
    address: (party, name) => party.address(name),
    addressOf,
    publishSigned,
    publishOneTime,
    start,
    encrypt,
    decrypt,
    distribute,
    accept,
    cipherOf,
    rotate,
  }),
});
