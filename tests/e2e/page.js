// page.js: a page of a browser that chats: runs inside Chromium, in the page's own origin. open() resolves with what happened.
'use strict';
window.chat = {
  events: [],
  waiting: [],
  next: 1,

  open(url, token, fields) {
    return new Promise((resolve) => {
      const socket = new WebSocket(url, ['roost.v1.json']);
      this.socket = socket;
      this.closed = null;
      socket.onclose = (event) => {
        this.closed = event.code;
        resolve({ closed: event.code });
      };
      socket.onmessage = (event) => {
        for (const e of JSON.parse(event.data).events) {
          const kind = Object.keys(e).find((k) => k !== 'id');
          this.events.push({ id: e.id || 0, kind, body: e[kind] });
          if (kind === 'welcome') this.request('hello', token === null ? fields : { token, ...fields });
          if (kind === 'ready') resolve({ protocol: socket.protocol, extensions: socket.extensions, ready: e.ready });
          if (kind === 'goodbye') this.goodbye = e.goodbye;
        }
      };
    });
  },

  request(kind, body) {
    const id = this.next++;
    this.socket.send(JSON.stringify({ requests: [{ id, [kind]: body }] }));
    return id;
  },

  async expect(kind, id) {
    for (let i = 0; i < 400; i++) {
      const at = this.events.findIndex((e) => e.kind === kind && (id === undefined || e.id === id));
      if (at >= 0) return this.events.splice(at, 1)[0].body;
      await new Promise((r) => setTimeout(r, 20));
    }
    throw new Error('no ' + kind + '; there is ' + JSON.stringify(this.events).slice(0, 300) + ' closed ' + this.closed);
  },

  async send(text, to) {
    const random = crypto.getRandomValues(new Uint8Array(16));
    const time = Date.now();
    for (let i = 0; i < 6; i++) random[i] = Math.floor(time / 2 ** (40 - 8 * i)) % 256;
    random[6] = 0x70 | (random[6] & 15);
    random[8] = 0x80 | (random[8] & 63);
    const id = [...random].map((b) => b.toString(16).padStart(2, '0')).join('').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
    const content = btoa(String.fromCharCode(...new TextEncoder().encode(text)));
    return this.expect('ack', this.request('send', { message_id: id, to_user: to, payload: { kind: 'MESSAGE', type: 'TEXT', content } }));
  },

  async message() {
    const message = await this.expect('message');
    const text = new TextDecoder().decode(Uint8Array.from(atob(message.payload.content), (c) => c.charCodeAt(0)));
    return { text, seq: message.seq, sender: message.sender, conversation: message.conversation_id };
  },
};
