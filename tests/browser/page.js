// What pages do, and what they notice of it.

const streams = [];

// Opens an EventSource. Returns its number, for `noticed`.
function follow(url) {
  const source = new EventSource(url);
  const seen = {opened: 0, broken: 0, ids: [], changes: [], told: [], over: false};
  source.addEventListener("open", () => { seen.opened += 1; });
  source.addEventListener("payment", (event) => {
    seen.ids.push(Number(event.lastEventId));
    seen.changes.push(JSON.parse(event.data));
  });
  source.addEventListener("end", () => { seen.over = true; });
  source.addEventListener("error", (event) => {
    if (event.data) seen.told.push(JSON.parse(event.data));
    else seen.broken += 1;
  });
  return streams.push({source, seen}) - 1;
}

function noticed(number) {
  const {source, seen} = streams[number];
  return {...seen, closed: source.readyState === EventSource.CLOSED, open: source.readyState === EventSource.OPEN};
}

// Makes a request. Returns what a page may read of the answer, or why there is none.
async function ask(url, options) {
  try {
    const response = await fetch(url, {cache: "no-store", ...options});
    const body = await response.arrayBuffer();
    return {
      status: response.status,
      headers: Object.fromEntries(response.headers),
      text: new TextDecoder().decode(body),
      size: body.byteLength,
      sha256: hex(await crypto.subtle.digest("SHA-256", body)),
    };
  } catch (error) {
    return {failed: String(error)};
  }
}

// Uploads a file that begins with `head` and goes on with zeros.
function upload(url, token, {name, kind, head, size, kindLast, headers}) {
  const bytes = new Uint8Array(Math.max(size, atob(head).length));
  bytes.set(Uint8Array.from(atob(head), (one) => one.charCodeAt(0)));
  const form = new FormData();
  if (!kindLast) form.set("kind", kind);
  form.set("file", new File([bytes], name));
  if (kindLast) form.set("kind", kind);
  return ask(url, {method: "POST", headers: {authorization: `Bearer ${token}`, ...headers}, body: form});
}

// Reads JSON lines as they come. Returns them, each with the milliseconds after which it came.
async function lines(url, token) {
  const response = await fetch(url, {headers: {authorization: `Bearer ${token}`}});
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const read = [];
  let rest = "";
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return {status: response.status, type: response.headers.get("content-type"), read, rest};
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) read.push(JSON.parse(part));
  }
}

function hex(buffer) {
  return Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// Calls an RPC by gRPC-Web. Returns the frames of the answer: [flags, base64] each; flags of 128 mark the trailers.
async function call(url, token, message) {
  const bytes = Uint8Array.from(atob(message), (one) => one.charCodeAt(0));
  const frame = new Uint8Array(5 + bytes.length);
  new DataView(frame.buffer).setUint32(1, bytes.length);
  frame.set(bytes, 5);
  const headers = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1", authorization: `Bearer ${token}`};
  const response = await fetch(url, {method: "POST", headers, body: frame});
  const answer = await response.arrayBuffer();
  const frames = [];
  for (let at = 0; at < answer.byteLength;) {
    const view = new DataView(answer, at);
    const length = view.getUint32(1);
    frames.push([view.getUint8(0), btoa(String.fromCharCode(...new Uint8Array(answer, at + 5, length)))]);
    at += 5 + length;
  }
  return {status: response.status, headers: Object.fromEntries(response.headers), frames};
}
