// identity.js: an identity system as an operator has one, by Node's crypto alone: tokens of EdDSA, ES256 and RS256 keys over wss and REST,
// and everything that must not pass for one. It runs the gateway itself. Arguments: binary, configuration file, the JWK Set's file. See check_identity.
'use strict';
const assert = require('assert');
const crypto = require('crypto');
const fs = require('fs');
const https = require('https');
const WebSocket = require('ws');
const { spawn } = require('child_process');

const [binary, config, jwksFile] = process.argv.slice(2);
const ISSUER = 'https://id.example', AUDIENCE = 'roost';
let checks = 0, base = '', gateway;

function ok(what) {
  checks++;
  console.log('ok   ', what);
}

// ---- keys and tokens

const pairs = {
  ed: crypto.generateKeyPairSync('ed25519'), ec: crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  rsa: crypto.generateKeyPairSync('rsa', { modulusLength: 2048 }), enc: crypto.generateKeyPairSync('rsa', { modulusLength: 2048 }),
  stranger: crypto.generateKeyPairSync('ed25519'), next: crypto.generateKeyPairSync('ed25519'),
};
const algorithms = { ed: 'EdDSA', ec: 'ES256', rsa: 'RS256', enc: 'RS256', stranger: 'EdDSA', next: 'EdDSA' };
const jwk = (name, more) => ({ ...pairs[name].publicKey.export({ format: 'jwk' }), kid: name, ...more });
const firstSet = { keys: [jwk('ed', { use: 'sig', alg: 'EdDSA' }), jwk('ec', { use: 'sig', alg: 'ES256' }), jwk('rsa', { use: 'sig', alg: 'RS256' }), jwk('enc', { use: 'enc' }),
  { kty: 'EC', crv: 'P-521', kid: 'unknown-curve', x: 'AA', y: 'AA' }, { kty: 'XYZ', kid: 'unknown-type' }] };
const base64url = (data) => Buffer.from(data).toString('base64url');

function signature(algorithm, key, text) {
  const data = Buffer.from(text);
  if (algorithm === 'EdDSA') return crypto.sign(null, data, key);
  if (algorithm === 'ES256') return crypto.sign('sha256', data, { key, dsaEncoding: 'ieee-p1363' });
  return crypto.sign('sha256', data, key);
}

// A good token of that key, but for what `change` says; claims or header fields of undefined are left out.
function token(name, change = {}) {
  const now = Math.floor(Date.now() / 1000);
  const header = { alg: algorithms[name], typ: 'JWT', kid: name, ...change.header };
  const claims = change.claimsText || JSON.stringify({ iss: ISSUER, aud: AUDIENCE, sub: 'someone', iat: now, exp: now + 600, ...change.claims });
  const text = base64url(JSON.stringify(header)) + '.' + base64url(claims);
  return text + '.' + base64url(change.sign ? change.sign(text) : signature(algorithms[name], pairs[name].privateKey, text));
}

// ---- the gateway and its clients

function start() {
  return new Promise((resolve, reject) => {
    const log = fs.openSync(config + '.log', 'a');
    gateway = spawn(binary, ['serve', '--config', config], { stdio: ['ignore', 'pipe', log] });
    let text = '';
    gateway.stdout.on('data', (data) => {
      const port = (text += data).match(/wss:\/\/localhost:(\d+)\/connect/);
      if (port) resolve((base = '127.0.0.1:' + port[1]));
    });
    gateway.on('exit', (code) => reject(new Error('the gateway ended with ' + code + ': ' + fs.readFileSync(config + '.log', 'utf8').slice(-500))));
  });
}

async function stop() {
  const ended = new Promise((resolve) => (gateway.removeAllListeners('exit'), gateway.on('exit', resolve)));
  gateway.kill('SIGTERM');
  assert.strictEqual(await ended, 0);
}

// hello: {ready} or {goodbye, close}
function hello(text, fields = {}) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`wss://${base}/connect`, ['roost.v1.json'], { rejectUnauthorized: false });
    const result = {};
    const timer = setTimeout(() => reject(new Error('neither ready nor goodbye')), 8000);
    socket.on('error', reject);
    socket.on('message', (data) => {
      for (const event of JSON.parse(data).events) {
        if (event.welcome) socket.send(JSON.stringify({ requests: [{ id: 1, hello: { token: text, device_key: 'node', ...fields } }] }));
        if (event.ready) socket.close(1000, ((result.ready = event.ready), 'enough'));
        if (event.goodbye) result.goodbye = event.goodbye;
      }
    });
    socket.on('close', (code) => (clearTimeout(timer), resolve({ ...result, close: code })));
  });
}

async function accepted(what, text, name, fields) {
  const { ready, goodbye } = await hello(text, fields);
  assert(ready, `${what}: refused: ${JSON.stringify(goodbye)}`);
  assert.strictEqual(ready.name, name, what);
  ok(what);
  return ready;
}

async function refused(what, text, code = 'UNAUTHENTICATED', number = 6) {
  const { ready, goodbye, close } = await hello(text);
  assert(!ready, `${what}: ACCEPTED as ${JSON.stringify(ready)}`);
  assert.deepStrictEqual([goodbye && goodbye.code, close], [code, 4000 + number], what);
  ok('refused: ' + what);
}

function get(path, bearer) {
  return new Promise((resolve, reject) => {
    https.get(`https://${base}${path}`, { rejectUnauthorized: false, headers: { Authorization: 'Bearer ' + bearer } }, (response) => {
      let text = '';
      response.on('data', (data) => (text += data));
      response.on('end', () => resolve({ status: response.statusCode, body: text }));
    }).on('error', reject);
  });
}

// until: what changes a moment later (a reload)
async function until(condition) {
  for (let i = 0; i < 100; i++) {
    if (await condition()) return true;
    await new Promise((r) => setTimeout(r, 50));
  }
  return false;
}

// ---- what passes

async function good() {
  const users = {};
  for (const name of ['ed', 'ec', 'rsa']) {
    users[name] = (await accepted(`${algorithms[name]} over wss`, token(name, { claims: { sub: 'by ' + name } }), 'by ' + name)).user;
    const { status, body } = await get('/users?id=' + users[name], token(name, { claims: { sub: 'by ' + name } }));
    assert.deepStrictEqual([status, JSON.parse(body).name], [200, 'by ' + name]);
  }
  ok('the same tokens with REST');
  assert.strictEqual(new Set(Object.values(users)).size, 3);
  for (let i = 0; i < 3; i++) await accepted('ES256 again: each signature is another', token('ec', { claims: { sub: 'by ec' } }), 'by ec');
  await accepted('aud is a list that holds ours', token('ec', { claims: { sub: 'list', aud: ['else', AUDIENCE] } }), 'list');
  await accepted('no kid where the algorithm has one key', token('rsa', { header: { kid: undefined }, claims: { sub: 'kidless' } }), 'kidless');
  await accepted('typ at+jwt', token('ed', { header: { typ: 'at+jwt' }, claims: { sub: 'typ' } }), 'typ');
  await accepted('no typ', token('ed', { header: { typ: undefined }, claims: { sub: 'typ' } }), 'typ');
  await accepted('a name in Unicode', token('ed', { claims: { sub: 'Zoë \u{1f469}‍\u{1f680}' } }), 'Zoë \u{1f469}‍\u{1f680}');
  await accepted('fractions of a second', token('ed', { claims: { sub: 'f', exp: Date.now() / 1000 + 100.5 } }), 'f');
  await accepted('expired 50 s ago: within the 60 s that clocks may differ', token('ed', { claims: { sub: 'l', exp: Date.now() / 1000 - 50 } }), 'l');
  await accepted('nbf in 50 s', token('ed', { claims: { sub: 'n', nbf: Date.now() / 1000 + 50 } }), 'n');
  await accepted('iat is not looked at', token('ed', { claims: { sub: 'i', iat: Date.now() / 1000 + 5000 } }), 'i');
  const one = await accepted('the claim device names the device', token('ed', { claims: { sub: 'dev', device: 'phone' } }), 'dev', { device_key: 'other' });
  const two = await accepted('it counts before device_key', token('ed', { claims: { sub: 'dev', device: 'phone' } }), 'dev', { device_key: 'another' });
  assert.strictEqual(one.device, two.device);
}

// ---- what must not

async function bad() {
  const pem = (name) => pairs[name].publicKey.export({ format: 'pem', type: 'spki' });
  const der = (name) => pairs[name].publicKey.export({ format: 'der', type: 'spki' });
  const hmac = (secret) => (text) => crypto.createHmac('sha256', secret).update(text).digest();
  await refused('alg none without a signature', token('ed', { header: { alg: 'none' }, sign: () => Buffer.alloc(0) }));
  await refused('alg none with a good signature', token('ed', { header: { alg: 'none' } }));
  for (const alg of ['None', 'NONE', 'nOnE', '', undefined, 7, null]) await refused(`alg ${JSON.stringify(alg)}`, token('ed', { header: { alg } }));
  await refused('HS256 with the RSA public key (PEM) as secret', token('rsa', { header: { alg: 'HS256' }, sign: hmac(pem('rsa')) }));
  await refused('HS256 with the RSA public key (DER) as secret', token('rsa', { header: { alg: 'HS256' }, sign: hmac(der('rsa')) }));
  await refused('HS256 with x of the Ed25519 key as secret', token('ed', { header: { alg: 'HS256' }, sign: hmac(Buffer.from(jwk('ed').x, 'base64url')) }));
  await refused('HS256 with an empty secret', token('ed', { header: { alg: 'HS256' }, sign: hmac('') }));
  for (const alg of ['RS384', 'RS512', 'PS256', 'ES384', 'ES256K', 'Ed25519', 'eddsa']) await refused(`alg ${alg}`, token('rsa', { header: { alg } }));
  await refused('PS256 by the RSA key, called RS256', token('rsa', { sign: (t) => crypto.sign('sha256', Buffer.from(t), { key: pairs.rsa.privateKey, padding: crypto.constants.RSA_PKCS1_PSS_PADDING }) }));
  await refused('RS256 over SHA-1', token('rsa', { sign: (t) => crypto.sign('sha1', Buffer.from(t), pairs.rsa.privateKey) }));
  await refused('another kid', token('ed', { header: { kid: 'ec' } }));
  await refused('an unknown kid', token('ed', { header: { kid: 'nobody' } }));
  await refused('an empty kid', token('ed', { header: { kid: '' } }));
  await refused('a kid that is a number', token('ed', { header: { kid: 1 } }));
  await refused("the gateway's own kid", token('ed', { header: { kid: 'roost' } }));
  await refused("the gateway's own kid and claims", token('ed', { header: { kid: 'roost' }, claims: { sub: '1', dev: 1, gen: 1 } }));
  await refused('a key of use enc', token('enc'));
  await refused('a key that is not in the set', token('stranger', { header: { kid: 'ed' } }));
  await refused('a key that the token brings itself (jwk)', token('stranger', { header: { kid: 'stranger', jwk: jwk('stranger') } }));
  await refused('a key from a place that the token names (jku)', token('stranger', { header: { jku: 'https://evil.example/jwks.json' } }));
  await refused('crit', token('ed', { header: { crit: ['exp'] } }));
  await refused('typ of something else', token('ed', { header: { typ: 'dpop+jwt' } }));
  await refused('b64 false', token('ed', { header: { b64: false, crit: ['b64'] } }));
  await refused('ES256 in DER', token('ec', { sign: (t) => crypto.sign('sha256', Buffer.from(t), pairs.ec.privateKey) }));
  await refused('ES256 of zeros', token('ec', { sign: () => Buffer.alloc(64) }));
  await refused('ES256 of ff', token('ec', { sign: () => Buffer.alloc(64, 255) }));
  await refused('EdDSA of zeros', token('ed', { sign: () => Buffer.alloc(64) }));
  await refused('an empty signature', token('ed', { sign: () => Buffer.alloc(0) }));
  for (const [what, claims] of [['another audience', { aud: 'else' }], ['no audience', { aud: undefined }], ['an empty list of audiences', { aud: [] }], ['audience as object', { aud: { roost: 1 } }],
    ['an audience that begins like ours', { aud: 'roost2' }], ['another issuer', { iss: 'https://id.example.evil' }], ['issuer with a slash more', { iss: ISSUER + '/' }], ['no issuer', { iss: undefined }],
    ['issuer as list', { iss: [ISSUER] }], ['no subject', { sub: undefined }], ['an empty subject', { sub: '' }], ['a subject of 129 bytes', { sub: 'x'.repeat(129) }], ['a subject with a newline', { sub: 'a\nb' }],
    ['a subject with U+0085', { sub: 'a\u0085b' }], ['a subject with a zero byte', { sub: 'a\u0000b' }], ['a subject that is a number', { sub: 7 }], ['no expiry', { exp: undefined }], ['expiry as text', { exp: '9999999999' }],
    ['a negative expiry', { exp: -1 }], ['an expiry beyond all time', { exp: 1e300 }], ['nbf as text', { nbf: 'now' }], ['a realm that is no number', { realm: 'x' }], ['a device with control characters', { device: 'a\tb' }]])
    await refused(what, token('ed', { claims }));
  await refused('expired 61 s ago', token('ed', { claims: { exp: Math.floor(Date.now() / 1000) - 61 } }), 'TOKEN_EXPIRED', 7);
  await refused('nbf in 100 s', token('ed', { claims: { nbf: Math.floor(Date.now() / 1000) + 100 } }), 'TOKEN_EXPIRED', 7);
  const good = token('ed'), parts = good.split('.');
  const claims = JSON.parse(Buffer.from(parts[1], 'base64url'));
  await refused('a claim twice', token('ed', { claimsText: JSON.stringify(claims).replace('{', '{"aud":"else",') }));
  await refused('claims that are a list', token('ed', { claimsText: '[]' }));
  await refused('claims that are no JSON', token('ed', { claimsText: 'sub=alice' }));
  await refused('claims of another token', parts[0] + '.' + base64url(JSON.stringify({ ...claims, sub: 'admin' })) + '.' + parts[2]);
  for (const [what, text] of [['four parts', good + '.e30'], ['two parts', parts[0] + '.' + parts[1]], ['padding', good + '='], ['a blank before', ' ' + good], ['a line end behind', good + '\n'], ['JSON serialisation', '{"payload":""}'],
    ['base64 instead of base64url', parts[0] + '.' + parts[1] + '.' + Buffer.alloc(64, 251).toString('base64').replace(/=/g, '')], ['dots', '...'], ['nothing', ''], ['a bit beyond the end', good.slice(0, -1) + String.fromCharCode(good.charCodeAt(good.length - 1) + 1)]])
    await refused(what, text);
  await refused('a token over 8,192 bytes', token('ed', { claims: { padding: 'x'.repeat(8192) } }), 'TOO_BIG', 3);
  for (const text of [token('stranger', { header: { kid: 'ed' } }), token('ed', { claims: { aud: 'else' } }), 'x'.repeat(9000)]) assert.notStrictEqual((await get('/users?name=x', text)).status, 200);
  ok('refused by REST too');
}

// ---- users and reload

async function names() {
  const body = JSON.stringify({ name: 'local', password: 'correct horse' });
  const status = await new Promise((resolve, reject) => {
    const request = https.request(`https://${base}/users`, { method: 'POST', rejectUnauthorized: false, headers: { 'Content-Type': 'application/json' } }, (r) => (r.resume(), resolve(r.statusCode)));
    request.on('error', reject);
    request.end(body);
  });
  assert.strictEqual(status, 201);
  await refused("a user who has a password here cannot be taken over by the identity system's name", token('ed', { claims: { sub: 'local' } }));
}

async function reload() {
  const live = new WebSocket(`wss://${base}/connect`, ['roost.v1.json'], { rejectUnauthorized: false });
  await new Promise((resolve, reject) => {
    live.on('error', reject);
    live.on('message', (data) => {
      for (const event of JSON.parse(data).events) {
        if (event.welcome) live.send(JSON.stringify({ requests: [{ id: 1, hello: { token: token('ec', { claims: { sub: 'stays' } }), device_key: 'live' } }] }));
        if (event.ready) resolve();
      }
    });
  });
  await refused('a key of tomorrow', token('next'));
  fs.writeFileSync(jwksFile, JSON.stringify({ keys: [jwk('ed'), jwk('next')] }));
  gateway.kill('SIGHUP');
  assert(await until(async () => (await hello(token('next'))).ready), 'the new key is not taken after SIGHUP');
  ok('SIGHUP: a new key of the file is taken');
  await refused('a key that the file no longer holds', token('ec'));
  await accepted('a key that stayed', token('ed', { claims: { sub: 'stayed' } }), 'stayed');
  const lines = () => fs.readFileSync(config + '.log', 'utf8').split('\n').filter((line) => line.includes('reload_failed'));
  const before = lines().length;
  fs.writeFileSync(jwksFile, JSON.stringify({ keys: [jwk('ec'), jwk('ec')] }));
  gateway.kill('SIGHUP');
  assert(await until(() => lines().length > before), 'a set that does not load is not reported');
  assert(lines().pop().includes(jwksFile), 'the line does not name the file: ' + lines().pop());
  await accepted('a set that does not load is reported, and the old one holds', token('next', { claims: { sub: 'stayed' } }), 'stayed');
  for (let i = 0; i < 20; i++) {
    fs.writeFileSync(jwksFile, JSON.stringify({ keys: [jwk(i % 2 ? 'ed' : 'next'), jwk('rsa')] }));
    gateway.kill('SIGHUP');
    await new Promise((r) => setTimeout(r, i % 4));
  }
  assert(await until(async () => (await hello(token('ed'))).ready), 'twenty reloads in a row');
  ok('twenty reloads in a row');
  assert.strictEqual(live.readyState, WebSocket.OPEN);
  ok('who was connected stayed connected over all of it');
  live.terminate();
}

(async () => {
  fs.writeFileSync(jwksFile, JSON.stringify(firstSet));
  await start();
  for (const test of [good, bad, names, reload]) await test();
  await stop();
  fs.writeFileSync(jwksFile, JSON.stringify(firstSet));
  fs.writeFileSync(config, fs.readFileSync(config, 'utf8').replace('create_users = yes', 'create_users = no'));
  await start();
  await accepted('create_users = no: who was seen before is let in', token('ed', { claims: { sub: 'by ed' } }), 'by ed');
  await refused('create_users = no: a name that nobody has', token('ed', { claims: { sub: 'newcomer' } }));
  await stop();
  const log = fs.readFileSync(config + '.log', 'utf8');
  assert(!/eyJ[A-Za-z0-9_-]{20}/.test(log), 'a token is in the log');
  ok('no token is in the log, at debug level');
  console.log(checks + ' checks');
})().catch((error) => {
  console.error('FAIL ', error.stack);
  if (gateway) gateway.kill('SIGKILL');
  process.exit(1);
});
