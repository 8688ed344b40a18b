// jwt_vectors.js: tokens and key sets made by another implementation (Node's crypto), for test_jwt.c:
//   node tests/unit/jwt_vectors.js >tests/unit/jwt_vectors.json
// Keys are new each time, so the whole file changes; times are fixed.
'use strict';
const crypto = require('crypto');

const NOW = 1790000000;
const ISSUER = 'https://id.example';
const AUDIENCE = 'roost';
const b64 = (x) => Buffer.from(x).toString('base64url');
const pair = {
    e1: crypto.generateKeyPairSync('ed25519'),
    e2: crypto.generateKeyPairSync('ed25519'),
    c1: crypto.generateKeyPairSync('ec', {namedCurve: 'P-256'}),
    r1: crypto.generateKeyPairSync('rsa', {modulusLength: 2048}),
    enc: crypto.generateKeyPairSync('rsa', {modulusLength: 2048}),
    p384: crypto.generateKeyPairSync('ec', {namedCurve: 'P-384'}),
    weak: crypto.generateKeyPairSync('rsa', {modulusLength: 1024}),
    stranger: crypto.generateKeyPairSync('ed25519'),
};
const jwk = (name, more) => ({...pair[name].publicKey.export({format: 'jwk'}), kid: name, ...more});
const keys = [
    jwk('e1', {alg: 'EdDSA', use: 'sig'}), jwk('e2', {key_ops: ['verify']}), jwk('c1'), jwk('r1', {alg: 'RS256'}),
    jwk('enc', {use: 'enc'}), jwk('p384'), {kty: 'future', kid: 'x'},
];

function signature(alg, key, text) {
    if (alg === 'EdDSA') return crypto.sign(null, text, key);
    if (alg === 'ES256') return crypto.sign('sha256', text, {key, dsaEncoding: 'ieee-p1363'});
    if (alg === 'ES256-DER') return crypto.sign('sha256', text, key);
    if (alg === 'RS256') return crypto.sign('sha256', text, key);
    if (alg === 'RS512') return crypto.sign('sha512', text, key);
    if (alg === 'PS256')
        return crypto.sign('sha256', text, {key, padding: crypto.constants.RSA_PKCS1_PSS_PADDING, saltLength: 32});
    throw new Error(alg);
}

const good = {iss: ISSUER, aud: AUDIENCE, sub: 'alice', iat: NOW - 10, exp: NOW + 600};
function token(kid, alg, claims, header, how) {
    const head = {alg, kid, typ: 'JWT', ...header};
    for (const name of Object.keys(head)) if (head[name] === undefined) delete head[name];
    const text = b64(JSON.stringify(head)) + '.' + b64(typeof claims === 'string' ? claims : JSON.stringify(claims));
    return text + '.' + b64(signature(how || alg, pair[kid].privateKey, Buffer.from(text)));
}
const raw = (header, claims, sig) => b64(header) + '.' + b64(claims) + '.' + sig;

const tokens = [];
const add = (name, expect, text, claims) => tokens.push({name, expect, token: text, ...(claims ? {claims} : {})});
const edited = (change) => token('e1', 'EdDSA', {...good, ...change});

add('EdDSA', 'ok', token('e1', 'EdDSA', good), {subject: 'alice', device: '', realm: 0, expires_ms: (NOW + 660) * 1000});
add('EdDSA, second key', 'ok', token('e2', 'EdDSA', good));
add('ES256', 'ok', token('c1', 'ES256', good));
add('RS256', 'ok', token('r1', 'RS256', good));
add('device and realm', 'ok', edited({sub: 'Zoë 😀', device: 'phone-1', realm: 7}),
    {subject: 'Zoë 😀', device: 'phone-1', realm: 7, expires_ms: (NOW + 660) * 1000});
add('aud list', 'ok', edited({aud: ['other', AUDIENCE]}));
add('fractional exp', 'ok', edited({exp: NOW + 1.5}), {subject: 'alice', device: '', realm: 0, expires_ms: (NOW + 61) * 1000 + 500});
add('at+jwt', 'ok', token('e1', 'EdDSA', good, {typ: 'at+jwt'}));
add('no typ', 'ok', token('e1', 'EdDSA', good, {typ: undefined}));
add('no kid, the only RSA key', 'ok', token('r1', 'RS256', good, {kid: undefined}));
add('no kid, two Ed25519 keys', 'denied', token('e1', 'EdDSA', good, {kid: undefined}));
add('no kid, two Ed25519 keys, the second signs', 'denied', token('e2', 'EdDSA', good, {kid: undefined}));
add('unknown kid', 'denied', token('stranger', 'EdDSA', good));
add('stranger signs as e1', 'denied', token('stranger', 'EdDSA', good, {kid: 'e1'}));
add('e2 signs as e1', 'denied', token('e2', 'EdDSA', good, {kid: 'e1'}));
add('key meant for encryption', 'denied', token('enc', 'RS256', good));
add('exp within leeway', 'ok', edited({exp: NOW - 59}));
add('exp beyond leeway', 'expired', edited({exp: NOW - 60}));
add('nbf within leeway', 'ok', edited({nbf: NOW + 60}));
add('nbf beyond leeway', 'expired', edited({nbf: NOW + 61}));
add('no exp', 'invalid', edited({exp: undefined}));
add('exp is text', 'invalid', edited({exp: String(NOW + 600)}));
add('exp is negative', 'invalid', edited({exp: -1}));
add('exp is huge', 'invalid', edited({exp: 2 ** 60}));
add('exp is 1e300', 'invalid', token('e1', 'EdDSA', JSON.stringify(good).replace(String(NOW + 600), '1e300')));
add('nbf is text', 'invalid', edited({nbf: 'now'}));
add('other issuer', 'denied', edited({iss: ISSUER + '/'}));
add('no issuer', 'denied', edited({iss: undefined}));
add('other audience', 'denied', edited({aud: 'rooster'}));
add('audience list without us', 'denied', edited({aud: ['a', 'b', 7]}));
add('audience is an object', 'denied', edited({aud: {roost: 1}}));
add('no audience', 'denied', edited({aud: undefined}));
add('no subject', 'invalid', edited({sub: undefined}));
add('empty subject', 'invalid', edited({sub: ''}));
add('subject is a number', 'invalid', edited({sub: 5}));
add('subject too long', 'invalid', edited({sub: 'a'.repeat(129)}));
add('longest subject', 'ok', edited({sub: 'a'.repeat(128)}));
add('subject with NUL', 'invalid', edited({sub: 'alice\0admin'}));
add('device with newline', 'invalid', edited({device: 'a\nb'}));
add('realm is negative', 'invalid', edited({realm: -1}));
add('realm over 32 bits', 'invalid', edited({realm: 2 ** 32}));
add('sub twice', 'invalid', token('e1', 'EdDSA', JSON.stringify(good).replace('{', '{"sub":"bob",')));
add('claims are a list', 'invalid', token('e1', 'EdDSA', '[]'));
add('claims are not JSON', 'invalid', token('e1', 'EdDSA', 'sub=alice'));
add('claims are not UTF-8', 'invalid', (() => {
    const text = b64('{"alg":"EdDSA","kid":"e1"}') + '.' + b64(Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]));
    return text + '.' + b64(signature('EdDSA', pair.e1.privateKey, Buffer.from(text)));
})());
add('alg none', 'invalid', raw('{"alg":"none"}', JSON.stringify(good), ''));
add('alg None', 'invalid', raw('{"alg":"None","kid":"e1"}', JSON.stringify(good), ''));
add('alg absent', 'invalid', raw('{"kid":"e1"}', JSON.stringify(good), 'AAAA'));
add('HS256 keyed with the public key', 'invalid', (() => {
    const text = b64('{"alg":"HS256","kid":"r1"}') + '.' + b64(JSON.stringify(good));
    const secret = pair.r1.publicKey.export({format: 'pem', type: 'spki'});
    return text + '.' + crypto.createHmac('sha256', secret).update(text).digest('base64url');
})());
add('RS512', 'invalid', token('r1', 'RS512', good));
add('PS256', 'invalid', token('r1', 'PS256', good));
add('PSS signature under RS256', 'denied', token('r1', 'RS256', good, {}, 'PS256'));
add('RS256 named, key is Ed25519', 'denied', token('e1', 'RS256', good, {}, 'EdDSA'));
add('EdDSA named, key is P-256', 'denied', token('c1', 'EdDSA', good, {}, 'ES256'));
add('ES256 with a DER signature', 'denied', token('c1', 'ES256', good, {}, 'ES256-DER'));
add('ES256 with a byte more', 'denied', (() => {
    const parts = token('c1', 'ES256', good).split('.');
    return [parts[0], parts[1], b64(Buffer.concat([Buffer.from(parts[2], 'base64url'), Buffer.alloc(1)]))].join('.');
})());
add('ES256 of zeros', 'denied', raw('{"alg":"ES256","kid":"c1"}', JSON.stringify(good), b64(Buffer.alloc(64))));
add('crit', 'invalid', token('e1', 'EdDSA', good, {crit: ['exp'], exp: 1}));
add('another typ', 'invalid', token('e1', 'EdDSA', good, {typ: 'logout+jwt'}));
add('kid is a number', 'invalid', token('e1', 'EdDSA', good, {kid: 1}));
add('kid is empty', 'invalid', token('e1', 'EdDSA', good, {kid: ''}));
add('kid of the gateway', 'denied', token('e1', 'EdDSA', good, {kid: 'roost'}));
add('alg twice', 'invalid', raw('{"alg":"EdDSA","alg":"EdDSA","kid":"e1"}', JSON.stringify(good), b64(Buffer.alloc(64))));
const whole = token('e1', 'EdDSA', good).split('.');
add('other claims under the signature', 'denied', [whole[0], b64(JSON.stringify({...good, sub: 'bob'})), whole[2]].join('.'));
add('no signature', 'denied', whole[0] + '.' + whole[1] + '.');
add('two parts', 'invalid', whole[0] + '.' + whole[1]);
add('four parts', 'invalid', whole.join('.') + '.x');
add('five parts, encrypted', 'invalid', whole.join('.') + '.x.y');
add('padding', 'invalid', whole.join('.') + '=');
add('blank at the end', 'invalid', whole.join('.') + ' ');
add('standard alphabet', 'invalid', whole[0] + '.' + whole[1] + '.+/' + whole[2].slice(2));
add('empty', 'invalid', '');
add('dots', 'invalid', '..');
add('too long', 'invalid', edited({pad: 'x'.repeat(6200)}));
add('long', 'ok', edited({pad: 'x'.repeat(5600)}));
add('deep', 'invalid', token('e1', 'EdDSA', JSON.stringify(good).replace('}', ',"x":' + '['.repeat(40) + ']'.repeat(40) + '}')));

const set = (...list) => JSON.stringify({keys: list});
const sets = [
    {name: 'one Ed25519 key', count: 1, jwks: set(jwk('e1'))},
    {name: 'keys without kid', count: 2, jwks: set(jwk('e1', {kid: undefined}), jwk('c1', {kid: undefined}))},
    {name: 'weak RSA', wrong: 'key 1 "weak": an RSA key needs at least 2048 bits', jwks: set(jwk('weak'))},
    {name: 'RSA with an even exponent', wrong: 'key 1 "r1": e must be', jwks: set(jwk('r1', {e: 'BA'}))},
    {name: 'RSA with exponent 1', wrong: 'key 1 "r1": e must be', jwks: set(jwk('r1', {e: 'AQ'}))},
    {name: 'RSA too big', wrong: 'key 1 "r1": n must be', jwks: set(jwk('r1', {n: b64(Buffer.alloc(1100, 255))}))},
    {name: 'RSA of 8200 bits', wrong: 'key 1 "r1": an RSA key may have', jwks: set(jwk('r1', {n: b64(Buffer.alloc(1025, 255))}))},
    {name: 'HMAC secret', wrong: 'key 2 "h": this is a secret key', jwks: set(jwk('e1'), {kty: 'oct', kid: 'h', k: 'AAAA'})},
    {name: 'private key', wrong: 'key 1 "e1": this is a secret key',
        jwks: set({...pair.e1.privateKey.export({format: 'jwk'}), kid: 'e1'})},
    {name: 'same kid twice', wrong: 'key 2 "e1": another key has', jwks: set(jwk('e1'), jwk('e2', {kid: 'e1'}))},
    {name: 'reserved kid', wrong: 'key 1: this kid is reserved', jwks: set(jwk('e1', {kid: 'roost'}))},
    {name: 'kid is a number', wrong: 'key 1: kid must be', jwks: set(jwk('e1', {kid: 5}))},
    {name: 'not on the curve', wrong: 'key 1 "c1": x and y are no point', jwks: set(jwk('c1', {y: b64(Buffer.alloc(32, 1))}))},
    {name: 'x too short', wrong: 'key 1 "e1": x must be', jwks: set(jwk('e1', {x: 'AAAA'}))},
    {name: 'x absent', wrong: 'key 1 "c1": x and y must be', jwks: set(jwk('c1', {x: undefined}))},
    {name: 'no kty', wrong: 'key 1 "a": no kty', jwks: set({kid: 'a'})},
    {name: 'not an object', wrong: 'key 2: not an object', jwks: set(jwk('e1'), 5)},
    {name: 'nothing of use', wrong: 'no key in the set', jwks: set(jwk('enc', {use: 'enc'}), jwk('p384'))},
    {name: 'empty', wrong: 'no key in the set', jwks: set()},
    {name: 'no keys', wrong: 'a JWK Set needs', jwks: '{}'},
    {name: 'not JSON', wrong: 'not a JSON object', jwks: 'keys'},
    {name: 'a list', wrong: 'not a JSON object', jwks: '[]'},
];

process.stdout.write(JSON.stringify({made_by: 'node tests/unit/jwt_vectors.js', now_ms: NOW * 1000, issuer: ISSUER, audience: AUDIENCE,
    jwks: set(...keys), jwks_count: 4, sets, tokens}, null, 1) + '\n');
