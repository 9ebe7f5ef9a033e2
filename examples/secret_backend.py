"""A backend whose page talks to a realtime model without ever seeing a Proxy-Key.

Standard library only. The page asks this backend for a client secret (POST /secret); the backend mints
one with its Proxy-Key, for one session of this page; the page opens a WebSocket to AIProxy with it.

    AIPROXY_URL=http://127.0.0.1:8080 AIPROXY_KEY=pk_... PORT=8000 python secret_backend.py

The page's origin, which is printed, has to be in AIProxy's `system.cors.origins`.
"""

import json
import os
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

AIPROXY = os.environ.get("AIPROXY_URL", "http://127.0.0.1:8080").rstrip("/")
KEY = os.environ["AIPROXY_KEY"]
MODEL = os.environ.get("AIPROXY_MODEL", "gpt-realtime")

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Realtime with a client secret</title>
<form><input name="text" value="你好" autofocus> <button>Send</button></form>
<pre></pre>
<script>
const log = document.querySelector("pre");
document.querySelector("form").onsubmit = async event => {
  event.preventDefault();
  const answer = await fetch("/secret", { method: "POST" });
  const secret = await answer.json();
  if (!answer.ok) { log.textContent += secret.error.message + "\\n"; return; }
  const socket = new WebSocket(secret.url, ["realtime", "openai-insecure-api-key." + secret.value]);
  const say = message => socket.send(JSON.stringify(message));
  socket.onopen = () => {
    const content = [{ type: "input_text", text: event.target.text.value }];
    say({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
    say({ type: "response.create" });
  };
  socket.onmessage = ({ data }) => {
    const heard = JSON.parse(data);
    if (heard.type === "response.output_text.delta") log.textContent += heard.delta;
    if (heard.type === "response.done") { log.textContent += "\\n"; socket.close(); }
  };
  socket.onclose = ({ code, reason }) => { if (code > 1000) log.textContent += code + " " + reason + "\\n"; };
};
</script>
"""


def mint(origin):
    """A client secret for one session of a page of this origin, begun within a minute."""
    wanted = {
        "expires_after": {"anchor": "created_at", "seconds": 60},
        "session": {"type": "realtime", "model": MODEL},
        "aiproxy": {"origins": [origin], "single_use": True},
    }
    request = urllib.request.Request(
        AIPROXY + "/v1/realtime/client_secrets",
        data=json.dumps(wanted).encode(),
        headers={"authorization": "Bearer " + KEY, "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        minted = json.load(answer)
    # AIProxy's address, and the secret; never the key.
    url = AIPROXY.replace("http", "ws", 1) + "/v1/realtime"
    return {"value": minted["value"], "expires_at": minted["expires_at"], "url": url}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path != "/":
            return self.answer(404, "text/plain", b"not found")
        self.answer(200, "text/html", PAGE.encode())

    def do_POST(self):
        if self.path != "/secret":
            return self.answer(404, "text/plain", b"not found")
        # Here your application makes sure that somebody is logged in, and how often they may ask. Pages
        # of other origins get nothing:
        if self.headers.get("origin") != self.server.origin:
            return self.answer(403, "application/json", b'{"error": {"message": "wrong origin"}}')
        try:
            self.answer(200, "application/json", json.dumps(mint(self.server.origin)).encode())
        except urllib.error.HTTPError as error:
            # What AIProxy says is for people, and holds no key.
            self.answer(502, "application/json", error.read())
        except OSError as error:
            message = {"error": {"message": f"AIProxy cannot be reached: {error}"}}
            self.answer(502, "application/json", json.dumps(message).encode())

    def answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("cache-control", "no-store")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8000"))), Handler)
    server.origin = f"http://127.0.0.1:{server.server_port}"
    print(server.origin, flush=True)
    server.serve_forever()
