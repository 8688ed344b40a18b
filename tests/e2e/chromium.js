// chromium.js: headless Chromium, driven by playwright-core: pages of the gateway's own origin chat, reload and resume; the Origin and
// cookie rules as a browser meets them. Arguments: mode ("own" or "listed"), URL of the gateway, URL of the other origin, directory.
'use strict';
const assert = require('assert');
const fs = require('fs');
const https = require('https');
const path = require('path');
const { chromium } = require('playwright-core');

const [mode, base, other, directory] = process.argv.slice(2);
const wss = base.replace('https', 'wss') + '/connect';
const script = fs.readFileSync(path.join(__dirname, 'page.js'), 'utf8');
let users = 0;

const ok = (what) => console.log('ok   ', what);

// REST is done by the page itself where it is of the gateway's origin; here for pages of other origins.
function post(where, body) {
  return new Promise((resolve, reject) => {
    const request = https.request(base + where, { method: 'POST', rejectUnauthorized: false, headers: { 'Content-Type': 'application/json' } }, (response) => {
      let text = '';
      response.on('data', (data) => (text += data));
      response.on('end', () => resolve(JSON.parse(text)));
    });
    request.on('error', reject);
    request.end(JSON.stringify(body));
  });
}

async function person() {
  const name = `${mode}${++users}`, password = 'correct horse ' + name;
  const { user } = await post('/users', { name, password });
  return { id: user, name, password, login: (device = 'browser') => post('/auth/login', { name, password, device }).then((t) => t.access_token) };
}

async function page(context, url) {
  const page = await context.newPage();
  await page.goto(url);
  await page.addScriptTag({ content: script });
  return page;
}

const open = (page, token, fields = {}) => page.evaluate(([u, t, f]) => chat.open(u, t, f), [wss, token, fields]);
const send = (page, text, to) => page.evaluate(([t, u]) => chat.send(t, u), [text, to]);
const message = (page) => page.evaluate(() => chat.message());
const expect = (page, kind) => page.evaluate((k) => chat.expect(k), kind);

async function own(context) {
  const bob = await person();
  const first = await page(context, base + '/'), second = await page(context, base + '/');
  const alice = await first.evaluate(async () => {
    const call = (where, body) => fetch(where, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) }).then((r) => r.json());
    const { user } = await call('/users', { name: 'from-the-page', password: 'correct horse' });
    const { access_token } = await call('/auth/login', { name: 'from-the-page', password: 'correct horse' });
    return { id: user, token: access_token };
  });
  ok('a page registers and logs in by fetch');
  const a = await open(first, alice.token);
  assert.deepStrictEqual([a.protocol, a.extensions, a.ready.user], ['roost.v1.json', '', alice.id]);
  const bobs = await bob.login();
  assert.strictEqual((await open(second, bobs)).ready.user, bob.id);
  ok('two pages of the own origin connect by wss');
  const ack = await send(first, 'hi \u{1f44b} from a page', bob.id);
  assert.deepStrictEqual([ack.seq, ack.durability], [1, 'DISK']);
  const got = await message(second);
  assert.deepStrictEqual([got.text, got.seq, got.sender], ['hi \u{1f44b} from a page', 1, alice.id]);
  await send(second, 'and back', alice.id);
  assert.strictEqual((await message(first)).text, 'and back');
  ok('they chat both ways');
  await second.evaluate((c) => chat.request('watermark', { conversation_id: c, delivered_seq: 2 }), ack.conversation_id);
  await first.evaluate(() => chat.expect('receipt'));
  await second.reload();
  await second.addScriptTag({ content: script });
  for (const text of ['three', 'four', 'five']) await send(first, text, bob.id);
  const again = await open(second, bobs);
  assert.strictEqual(again.ready.pending_conversations, 1);
  for (let seq = 3; seq <= 5; seq++) assert.strictEqual((await message(second)).seq, seq);
  await expect(second, 'synced');
  await send(first, 'live', bob.id);
  assert.strictEqual((await message(second)).seq, 6);
  ok('a reload resumes behind the watermark, in order, without a gap');
  const third = await page(context, base + '/');
  await open(third, bobs);
  await second.waitForFunction(() => chat.closed !== null);
  assert.deepStrictEqual(await second.evaluate(() => [chat.closed, chat.goodbye.code]), [4018, 'REPLACED']);
  ok('a newer page of the device displaces the older: 4018');

  // cookie: counts where the Origin was sent and allowed, and hello.token counts before it
  const carol = await person(), dave = await person();
  await context.addCookies([{ name: 'roost_access', value: await carol.login(), url: base, secure: true, httpOnly: true, sameSite: 'Strict' }]);
  const fourth = await page(context, base + '/');
  assert.strictEqual((await open(fourth, null)).ready.user, carol.id);
  ok('a token in the cookie of the upgrade counts');
  assert.strictEqual((await open(fourth, await dave.login())).ready.user, dave.id);
  ok('the token of hello counts before it');
  await context.clearCookies();
  assert.strictEqual((await open(fourth, null)).closed, 4006);
  ok('no token at all: 4006');
  const foreign = await page(context, other + '/');
  assert.strictEqual((await open(foreign, await dave.login())).closed, 1006);
  ok('a page of another origin is refused');
}

async function listed(context) {
  const erin = await person();
  const allowed = await page(context, other + '/'), self = await page(context, base + '/');
  assert.strictEqual((await open(allowed, await erin.login())).ready.user, erin.id);
  ok('a page of a listed origin is let in');
  assert.strictEqual((await open(self, await erin.login())).closed, 1006);
  ok('the own origin is refused when it is not on the list');
}

(async () => {
  fs.rmSync(directory, { recursive: true, force: true });
  const context = await chromium.launchPersistentContext(directory, {
    executablePath: '/usr/bin/chromium',
    headless: true,
    ignoreHTTPSErrors: true,
    bypassCSP: false,
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', '--ignore-certificate-errors', '--proxy-server=direct://'],
  });
  try {
    await { own, listed }[mode](context);
  } finally {
    await context.close();
    fs.rmSync(directory, { recursive: true, force: true });
  }
})().then(() => process.exit(0), (error) => {
  console.error('FAIL ', error.stack);
  process.exit(1);
});
