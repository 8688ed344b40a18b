// node.js: npm's ws in Node, binary subprotocol through protobufjs, which reads gateway/wire/roost.proto as any stranger would; a second
// client of the same library speaks JSON. Arguments: public URL, scratch directory. See check_node.
'use strict';
const assert = require('assert');
const crypto = require('crypto');
const https = require('https');
const WebSocket = require('ws');
const protobuf = require('protobufjs');

const [base] = process.argv.slice(2);
const root = new protobuf.Root().loadSync('gateway/wire/roost.proto', { keepCase: true });
const ClientFrame = root.lookupType('roost.v1.ClientFrame');
const ServerFrame = root.lookupType('roost.v1.ServerFrame');
const Code = root.lookupEnum('roost.v1.Code').values;
const Durability = root.lookupEnum('roost.v1.Durability').values;
let checks = 0;

function ok(what) {
  checks++;
  console.log('ok   ', what);
}

function post(path, body) {
  return new Promise((resolve, reject) => {
    const request = https.request(base + path, { method: 'POST', rejectUnauthorized: false, headers: { 'Content-Type': 'application/json' } });
    request.on('error', reject);
    request.on('response', (response) => {
      let text = '';
      response.on('data', (data) => (text += data));
      response.on('end', () => (response.statusCode < 300 ? resolve(JSON.parse(text)) : reject(new Error(path + ': ' + response.statusCode + text))));
    });
    request.end(JSON.stringify(body));
  });
}

let users = 0;
async function person() {
  const name = 'node' + ++users, password = 'correct horse ' + name;
  const { user } = await post('/users', { name, password });
  return { id: user, name, login: async (device) => (await post('/auth/login', { name, password, device })).access_token };
}

function uuid7() {
  const id = crypto.randomBytes(16);
  id.writeUIntBE(Date.now(), 0, 6);
  id[6] = 0x70 | (id[6] & 15);
  id[8] = 0x80 | (id[8] & 63);
  return id;
}
const uuidText = (b) => b.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');

// Events of both encodings in one form: numbers as numbers, user ids as decimal text, ids as hexadecimal text, content as Buffer.
const plain = { longs: String, bytes: Buffer, enums: String };
function normal(value, name) {
  if (Buffer.isBuffer(value)) return name.endsWith('_id') ? value.toString('hex') : value.toString('base64');
  if (Array.isArray(value)) return value.map((v) => normal(v, name));
  if (value !== null && typeof value === 'object') return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, normal(v, k)]));
  if (name.endsWith('_id')) return value.replace(/-/g, '');
  if (['user', 'sender', 'to_user'].includes(name)) return String(value);
  return typeof value === 'string' && /^[0-9]+$/.test(value) && name !== 'content' ? Number(value) : value;
}

class Client {
  constructor(encoding) {
    this.binary = encoding === 'proto';
    this.pending = [];
    this.waiting = [];
    this.nextId = 1;
    this.pongs = 0;
  }

  async open() {
    this.socket = new WebSocket(base.replace('https', 'wss') + '/connect', ['roost.v1.' + (this.binary ? 'proto' : 'json')], { rejectUnauthorized: false });
    this.closed = new Promise((resolve) => this.socket.on('close', (code, reason) => {
      this.code = code;
      this.reason = reason.toString();
      this.look();
      resolve(code);
    }));
    this.socket.on('pong', (data) => (this.pong = data.toString()));
    this.socket.on('error', (error) => (this.error = error));
    this.socket.on('message', (data, isBinary) => {
      assert.strictEqual(isBinary, this.binary);
      const frame = isBinary ? ServerFrame.toObject(ServerFrame.decode(data), plain) : JSON.parse(data);
      for (const event of frame.events) {
        const kind = Object.keys(event).find((k) => k !== 'id');
        this.pending.push({ id: Number(event.id || 0), kind, body: normal(event[kind], kind) });
      }
      this.look();
    });
    this.welcome = await this.expect('welcome');
    return this;
  }

  look() {
    this.waiting = this.waiting.filter((w) => {
      const at = this.pending.findIndex((e) => e.kind === w.kind && (w.id === undefined || e.id === w.id));
      if (at < 0 && this.code !== undefined) return w.reject(new Error(`closed with ${this.code} ${this.reason} while waiting for ${w.kind}`)), false;
      if (at < 0) return true;
      w.resolve(this.pending.splice(at, 1)[0].body);
      return false;
    });
  }

  expect(kind, id, ms = 8000) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`no ${kind} in ${ms} ms; there is ${JSON.stringify(this.pending).slice(0, 400)}`)), ms);
      this.waiting.push({ kind, id, resolve: (v) => (clearTimeout(timer), resolve(v)), reject: (e) => (clearTimeout(timer), reject(e)) });
      this.look();
    });
  }

  encode(requests) {
    if (!this.binary) return JSON.stringify({ requests });
    const object = JSON.parse(JSON.stringify({ requests }), (key, value) => typeof value === 'string' && (key.endsWith('_id') || key === 'content')
      ? (key === 'content' ? Buffer.from(value, 'base64') : Buffer.from(value.replace(/-/g, ''), 'hex')) : value);
    return ClientFrame.encode(ClientFrame.fromObject(object)).finish();
  }

  request(kind, body) {
    const id = this.nextId++;
    this.socket.send(this.encode([{ id, [kind]: body }]));
    return id;
  }

  async hello(token, fields = {}) {
    this.ready = await this.expect('ready', this.request('hello', { token, client: 'npm ws', ...fields }));
    return this;
  }

  sendBody(content, to, id = uuid7()) {
    return { message_id: uuidText(id), to_user: to, payload: { kind: 'MESSAGE', type: 'TEXT', content: Buffer.from(content).toString('base64') } };
  }

  async send(content, to, id) {
    const ack = await this.expect('ack', this.request('send', this.sendBody(content, to, id)));
    assert.strictEqual(ack.durability, 'DISK');
    return ack;
  }

  async close() {
    this.request('goodbye', {});
    assert.strictEqual(await this.closed, 1000);
  }
}

const connect = async (encoding, user, device, fields) => (await new Client(encoding).open()).hello(await user.login(device), fields);
const contentOf = (message) => Buffer.from(message.payload.content || '', 'base64').toString();

async function chat() {
  const alice = await person(), bob = await person();
  const a = await connect('proto', alice, 'phone'), b = await connect('json', bob, 'desk'), b2 = await connect('proto', bob, 'phone');
  const strip = ({ time_ms, ...rest }) => rest;
  assert.deepStrictEqual(strip(a.welcome), strip(b.welcome));
  ok('welcome means the same in both encodings');
  assert.strictEqual(a.ready.user, alice.id);
  const ack = await a.send('hi \u{1f44b} from binary', bob.id);
  const inJson = await b.expect('message'), inBinary = await b2.expect('message');
  assert.strictEqual(contentOf(inJson), 'hi \u{1f44b} from binary');
  const { payload: p1, ...rest1 } = inJson, { payload: p2, ...rest2 } = inBinary;
  assert.deepStrictEqual(rest1, rest2);
  assert.strictEqual(p1.content, p2.content);
  assert.deepStrictEqual([p2.kind || 'MESSAGE', p2.type || 'TEXT'], [p1.kind || 'MESSAGE', p1.type || 'TEXT']);
  ok('a message means the same in both encodings');
  const back = await b.send('and from JSON', alice.id);
  const atAlice = await a.expect('message');
  assert.deepStrictEqual([contentOf(atAlice), atAlice.seq, atAlice.conversation_id, back.seq], ['and from JSON', 2, ack.conversation_id, 2]);
  b.request('watermark', { conversation_id: back.conversation_id.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5'), read_seq: 2 });
  const receipt = await a.expect('receipt');
  assert.deepStrictEqual([receipt.user, receipt.conversation_id], [bob.id, ack.conversation_id]);
  ok('binary and JSON clients chat both ways, with receipts');
  const error = await a.expect('error', a.request('send', a.sendBody('x', '4611686018427387903')));
  assert.strictEqual(error.code, 'NOT_FOUND');
  const id = uuid7();
  const first = await a.send('once', bob.id, id), again = await a.send('once', bob.id, id);
  assert.deepStrictEqual([first.seq, true], [again.seq, again.duplicate]);
  ok('errors and duplicates in binary');
  await a.close();
  await b.close();
  await b2.close();
}

async function wire() {
  const alice = await person(), bob = await person();
  const a = await connect('proto', alice), b = await connect('json', bob);
  a.socket.ping('are you there');
  while (a.pong === undefined) await new Promise((r) => setTimeout(r, 5));
  assert.strictEqual(a.pong, 'are you there');
  const pong = await a.expect('pong', a.request('ping', { time_ms: 1790000060000 }));
  assert.strictEqual(pong.time_ms, 1790000060000);
  ok('ping and pong, of WebSocket and of the protocol');

  const frame = a.encode([{ id: 900, send: a.sendBody('in fragments', bob.id) }]);
  const size = Math.ceil(frame.length / 20);
  for (let at = 0; at < frame.length; at += size) {
    a.socket.send(frame.subarray(at, at + size), { binary: true, fin: at + size >= frame.length });
    if (at === 3 * size) a.socket.ping('between');
  }
  await a.expect('ack', 900);
  assert.strictEqual(contentOf(await b.expect('message')), 'in fragments');
  assert.strictEqual(a.pong, 'between');
  ok('a message in 20 fragments with a ping between');

  const limit = a.welcome.message_bytes_max;
  const empty = a.encode([{ id: 901, send: a.sendBody('', bob.id) }]).length;
  let content = 'z'.repeat(limit - empty - 12), big = a.encode([{ id: 901, send: a.sendBody(content, bob.id) }]);
  while (big.length < limit) {
    content += 'z';
    big = a.encode([{ id: 901, send: a.sendBody(content, bob.id) }]);
  }
  assert.strictEqual(big.length, limit);
  a.socket.send(big);
  await a.expect('ack', 901);
  assert.strictEqual(contentOf(await b.expect('message')).length, content.length);
  ok(`a message of exactly ${limit} bytes arrives, in JSON too`);
  const many = Array.from({ length: a.welcome.requests_max }, (_, i) => ({ id: 1000 + i, ping: { time_ms: i } }));
  a.socket.send(a.encode(many));
  for (const { id } of many) await a.expect('pong', id);
  ok(`${many.length} requests in one frame`);
  await b.close();

  const beyond = await connect('proto', alice);
  assert.strictEqual(await a.closed, 4000 + Code.REPLACED);
  beyond.socket.send(Buffer.alloc(limit + 1));
  assert.strictEqual(await beyond.closed, 1009);
  ok('one byte beyond: 1009');
  const fragments = await connect('proto', alice);
  for (let i = 0; i <= fragments.welcome.fragments_max; i++) fragments.socket.send(Buffer.alloc(1), { binary: true, fin: i === fragments.welcome.fragments_max });
  assert.strictEqual(await fragments.closed, 1009);
  ok('one fragment beyond: 1009');
  const crowd = await connect('proto', alice);
  crowd.socket.send(crowd.encode([...many, { id: 1, ping: {} }]));
  assert.strictEqual((await crowd.expect('goodbye')).code, 'TOO_BIG');
  assert.strictEqual(await crowd.closed, 4000 + Code.TOO_BIG);
  assert.strictEqual(crowd.reason, 'TOO_BIG');
  ok('one request beyond: goodbye TOO_BIG, 4003, its name as reason');
  const wrong = await connect('proto', alice);
  wrong.socket.send('text');
  assert.strictEqual(await wrong.closed, 1003);
  const malformed = await connect('proto', alice);
  malformed.socket.send(Buffer.from('0aff', 'hex'));
  const goodbye = await malformed.expect('goodbye');
  assert.deepStrictEqual([goodbye.code, await malformed.closed], ['MALFORMED', 4001]);
  ok('text on a binary connection: 1003; malformed protobuf: goodbye MALFORMED, 4001');
  const later = await connect('proto', alice);
  const future = Buffer.from('0a060807a2060100', 'hex');
  later.socket.send(future); // a request with id 7 and a body of number 100 that nobody knows
  assert.strictEqual((await later.expect('error', 7)).code, 'UNSUPPORTED');
  ok('a request from the future: error UNSUPPORTED');
  await later.close();
}

async function resume() {
  const alice = await person(), bob = await person();
  const a = await connect('proto', alice);
  const token = await bob.login('phone');
  let b = await (await new Client('proto').open()).hello(token);
  const acks = [];
  for (let i = 0; i < 10; i++) acks.push(await a.send('m' + i, bob.id));
  for (let i = 0; i < 10; i++) assert.strictEqual((await b.expect('message')).seq, i + 1);
  const conversation = acks[0].conversation_id;
  b.request('watermark', { conversation_id: conversation, delivered_seq: 6 });
  await b.expect('pong', b.request('ping', {}));
  b.socket.terminate();
  for (let i = 10; i < 20; i++) await a.send('m' + i, bob.id);
  b = await (await new Client('proto').open()).hello(token, { credit: { messages: 3, bytes: 1 << 20 } });
  assert.strictEqual(b.ready.pending_conversations, 1);
  const seen = [];
  for (let i = 7; i <= 20; i++) {
    const message = await b.expect('message');
    seen.push(message.seq);
    assert.strictEqual(contentOf(message), 'm' + (message.seq - 1));
    b.request('credit', { messages: 1, bytes: 100 });
  }
  assert.deepStrictEqual(seen, Array.from({ length: 14 }, (_, i) => i + 7));
  await b.expect('synced');
  ok('reconnect and resume behind the watermark, in order, at the pace of credit');
  const history = await b.expect('history', b.request('range', { conversation_id: conversation, from_seq: 3, to_seq: 5 }));
  assert.deepStrictEqual(history.messages.map((m) => m.seq), [3, 4, 5]);
  ok('range');
  await a.close();
  await b.close();
}

(async () => {
  assert.strictEqual(Durability.DISK, 1);
  for (const test of [chat, wire, resume]) await test();
  console.log(checks + ' checks of npm ws');
  process.exit(0);
})().catch((error) => {
  console.error('FAIL ', error.stack);
  process.exit(1);
});
