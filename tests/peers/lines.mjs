// The peer protocol for peers that run in Node: one JSON object a line in, one a line out, in order.
import { createInterface } from 'node:readline';

// One of the peers prints whole sessions, keys included, through the console; and standard output is the protocol's.
for (const level of ['log', 'info', 'warn', 'error', 'debug', 'trace', 'dir']) console[level] = () => {};

export const bytes = (text) => Buffer.from(text, 'base64');
export const text = (data) => Buffer.from(data).toString('base64');

export class Refusal extends Error {}

/** The element under `key`, made by `make` at the first asking. */
export function entry(map, key, make) {
  if (!map.has(key)) map.set(key, make());
  return map.get(key);
}

/** A name without a dot, which two of the libraries keep for themselves: they write an address as NAME.DEVICE. */
export const undotted = (name) => encodeURIComponent(name).replaceAll('.', '%2E');

/** What every peer does alike: finds the party, turns base64 into bytes and back. `peer` has one method an operation. */
export async function serve({ name, version, can, makeParty, peer, works }) {
  const parties = new Map();
  const party = (request) => {
    const found = parties.get(request.who);
    if (!found) throw new Refusal(`no party ${request.who}`);
    return found;
  };
  const operations = {
    hello: () => ({ name, version, can: works ? [...can, 'bench'] : can }),
    party: async ({ who }) => {
      if (!parties.has(who)) parties.set(who, await makeParty(who));
      const own = parties.get(who);
      return { identity: text(own.identity), registration_id: own.registrationId };
    },
    bundle: async (r) => encodeBundle(await peer.bundle(party(r), r.one_time !== false)),
    start: async (r) => (await peer.start(party(r), r.peer, decodeBundle(r.bundle)), { ok: true }),
    encrypt: async (r) => {
      const { kind, frame } = await peer.encrypt(party(r), r.peer, bytes(r.plaintext));
      return { kind, frame: text(frame) };
    },
    decrypt: async (r) => ({ plaintext: text(await peer.decrypt(party(r), r.peer, r.kind, bytes(r.frame))) }),
    group_distribute: async (r) => ({ frame: text(await peer.groupDistribute(party(r), r.group)) }),
    group_accept: async (r) => (await peer.groupAccept(party(r), r.peer, r.group, bytes(r.frame)), { ok: true }),
    group_encrypt: async (r) => ({ frame: text(await peer.groupEncrypt(party(r), r.group, bytes(r.plaintext))) }),
    group_decrypt: async (r) => ({ plaintext: text(await peer.groupDecrypt(party(r), r.peer, r.group, bytes(r.frame))) }),
    group_rotate: async (r) => (await peer.groupRotate(party(r), r.group), { ok: true }),
    bench: async (r) => ({ ns: await measure(works, r.work, r.rows, r.bytes ?? 256) }),
  };
  for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
    let reply;
    try {
      const request = JSON.parse(line);
      const operation = Object.hasOwn(operations, request.op) && operations[request.op];
      if (!operation) throw new Refusal(`no operation ${request.op}`);
      if (request.op.startsWith('group_') && !can.includes('group')) throw new Refusal('this peer has no groups');
      reply = await operation(request);
    } catch (error) {
      // WebAssembly peers throw plain strings.
      reply = { error: String(error?.message || error?.name || error || 'refused') };
    }
    process.stdout.write(JSON.stringify(reply) + '\n');
  }
  process.exit(0);
}

function encodeBundle(bundle) {
  const { signedPrekey, oneTimePrekey } = bundle;
  return {
    registration_id: bundle.registrationId,
    device_id: 1,
    identity: text(bundle.identity),
    signed_prekey: { id: signedPrekey.id, public: text(signedPrekey.public), signature: text(signedPrekey.signature) },
    one_time_prekey: oneTimePrekey ? { id: oneTimePrekey.id, public: text(oneTimePrekey.public) } : null,
  };
}

function decodeBundle(bundle) {
  const { signed_prekey: signed, one_time_prekey: oneTime } = bundle;
  return {
    registrationId: bundle.registration_id,
    deviceId: bundle.device_id ?? 1,
    identity: bytes(bundle.identity),
    signedPrekey: { id: signed.id, public: bytes(signed.public), signature: bytes(signed.signature) },
    oneTimePrekey: oneTime ? { id: oneTime.id, public: bytes(oneTime.public) } : null,
  };
}

/**
 * Runs `works[work](rows, size)`, which prepares outside the clock and returns `run` (the clocked loop, which may be
 * asynchronous) and `verify` (which throws unless the last operation's result is right).
 */
async function measure(works, work, rows, size) {
  if (!works || !Object.hasOwn(works, work)) throw new Refusal(`no bench ${work}`);
  if (!Number.isInteger(rows) || rows < 1) throw new Refusal('rows must be at least 1');
  const { run, verify } = await works[work](rows, size);
  globalThis.gc?.();
  const begin = process.hrtime.bigint();
  await run();
  const elapsed = process.hrtime.bigint() - begin;
  await verify();
  return Number(elapsed) / rows;
}

export function assertSame(actual, expected) {
  if (Buffer.compare(Buffer.from(actual), Buffer.from(expected)) !== 0) throw new Error('the last result is wrong');
}

/**
 * The benches of a peer, written once over its own operations. `begin()` gives two parties whose stores keep live
 * records where the library allows it; session `n` of either is with the address `addresses[n]`.
 */
export function benches({ begin, prepare, publish, start, encrypt, decrypt, group }) {
  // One at a time: having 16 or 64 rows under way at once made none of the libraries faster.
  async function each(rows, step) {
    let last;
    for (let n = 0; n < rows; n += 1) last = await step(n);
    return last;
  }
  const plain = (size) => Buffer.alloc(size, 0x5a);
  const addressed = (rows) => Array.from({ length: rows }, (_, n) => prepare(`p${n}`));

  // Sessions acknowledged in both directions: `near` has just sent on a chain that `far` already follows.
  async function warm(rows, message) {
    const [near, far] = await Promise.all([begin(), begin()]);
    const addresses = addressed(rows);
    for (const address of addresses) {
      await start(near, address, await publish(far));
      const first = await encrypt(near, address, message);
      await decrypt(far, address, first);
      await decrypt(near, address, await encrypt(far, address, message));
      await decrypt(far, address, await encrypt(near, address, message));
    }
    return { near, far, addresses };
  }

  const works = {
    async 'encrypt/warm'(rows, size) {
      const message = plain(size);
      const { near, far, addresses } = await warm(rows, message);
      let last;
      return {
        run: async () => { last = await each(rows, (n) => encrypt(near, addresses[n], message)); },
        verify: async () => assertSame(await decrypt(far, addresses.at(-1), last), message),
      };
    },
    async 'decrypt/warm'(rows, size) {
      const message = plain(size);
      const { near, far, addresses } = await warm(rows, message);
      const frames = [];
      for (const address of addresses) frames.push(await encrypt(near, address, message));
      let last;
      return {
        run: async () => { last = await each(rows, (n) => decrypt(far, addresses[n], frames[n])); },
        verify: () => assertSame(last, message),
      };
    },
    async setup(rows, size) {
      const message = plain(size);
      const [near, far] = await Promise.all([begin(), begin()]);
      const addresses = addressed(rows);
      const bundles = [];
      for (let n = 0; n < rows; n += 1) bundles.push(await publish(far));
      let last;
      return {
        run: async () => {
          last = await each(rows, async (n) => {
            await start(near, addresses[n], bundles[n]);
            return encrypt(near, addresses[n], message);
          });
        },
        verify: async () => assertSame(await decrypt(far, addresses.at(-1), last), message),
      };
    },
    async turn(rows, size) {
      const message = plain(size);
      const { near, far, addresses } = await warm(rows, message);
      const frames = [];
      for (const address of addresses) frames.push(await encrypt(far, address, message));
      let last;
      return {
        run: async () => {
          last = await each(rows, async (n) => {
            const opened = await decrypt(near, addresses[n], frames[n]);
            return { opened, sent: await encrypt(near, addresses[n], message) };
          });
        },
        verify: async () => {
          assertSame(last.opened, message);
          assertSame(await decrypt(far, addresses.at(-1), last.sent), message);
        },
      };
    },
  };
  if (!group) return works;

  // One sender key a row: the groups of one sender, or the senders of one group, are the same work for a cipher.
  async function senders(rows) {
    const [sender, member] = await Promise.all([begin(), begin()]);
    const groups = Array.from({ length: rows }, (_, n) => `group-${n}`);
    for (const name of groups) await group.accept(member, name, await group.distribute(sender, name));
    return { sender, member, groups };
  }
  works['group/open'] = async (rows, size) => {
    const message = plain(size);
    const { sender, member, groups } = await senders(rows);
    const frames = [];
    for (const name of groups) frames.push(await group.encrypt(sender, name, message));
    const ciphers = groups.map((name) => group.cipher(member, name));
    let last;
    return {
      run: async () => { last = await each(rows, (n) => group.open(ciphers[n], frames[n])); },
      verify: () => assertSame(last, message),
    };
  };
  works['group/send'] = async (rows, size) => {
    const message = plain(size);
    const { sender, member, groups } = await senders(rows);
    const ciphers = groups.map((name) => group.cipher(sender, name));
    let last;
    return {
      run: async () => { last = await each(rows, (n) => group.send(ciphers[n], message)); },
      verify: async () => assertSame(await group.open(group.cipher(member, groups.at(-1)), last), message),
    };
  };
  return works;
}

/** The name under which a party's own sender keys are kept. */
export const OWN = 'self';

/**
 * `peer` and `works` of a library whose parties have prekeys and sender keys in Baileys' shape, from its operations.
 * `address(party, name)` is what the sessions of a party go by; `addressOf(name)` what a bench's do.
 */
export function engine(library) {
  const { Party, address, addressOf, publishSigned, publishOneTime, start, encrypt, decrypt } = library;
  const { distribute, accept, cipherOf, rotate } = library;
  const published = (party, signedPrekey, oneTime) => ({
    registrationId: party.registrationId,
    identity: party.identity,
    signedPrekey,
    oneTimePrekey: oneTime ? publishOneTime(party) : null,
  });
  const peer = {
    bundle: async (party, oneTime) => published(party, publishSigned(party), oneTime),
    start: (party, name, bundle) => start(party, address(party, name), bundle),
    encrypt: (party, name, plaintext) => encrypt(party, address(party, name), plaintext),
    decrypt: (party, name, kind, frame) => decrypt(party, address(party, name), kind, frame),
    groupDistribute: async (party, groupId) => (await distribute(party, groupId)).serialize(),
    groupAccept: (party, name, groupId, frame) => accept(party, groupId, name, frame),
    groupEncrypt: (party, groupId, plaintext) => cipherOf(party, groupId, OWN).encrypt(plaintext),
    groupDecrypt: (party, name, groupId, frame) => cipherOf(party, groupId, name).decrypt(frame),
    groupRotate: async (party, groupId) => rotate(party, groupId),
  };
  const works = benches({
    begin: async () => new Party({ live: true }),
    prepare: addressOf,
    publish: async (party) => published(party, (party.benchPrekey ??= publishSigned(party)), true),
    start,
    encrypt,
    decrypt: (party, to, { kind, frame }) => decrypt(party, to, kind, frame),
    group: {
      distribute: peer.groupDistribute,
      accept: (party, groupId, frame) => accept(party, groupId, OWN, frame),
      encrypt: peer.groupEncrypt,
      cipher: (party, groupId) => cipherOf(party, groupId, OWN),
      open: (cipher, frame) => cipher.decrypt(frame),
      send: (cipher, plaintext) => cipher.encrypt(plaintext),
    },
  });
  return { peer, works };
}
