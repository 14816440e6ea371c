// The library of Standard Webhooks verifies what the service signs, and the receiver of
// docs/webhooks.md accepts it. `webhook.json` has the headers and the body of a delivery.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { setTimeout } from "node:timers/promises";
import { Webhook } from "standardwebhooks";

const { secrets, headers, body } = JSON.parse(readFileSync("generated/webhook.json", "utf8"));

for (const secret of secrets) {
  assert.deepEqual(new Webhook(secret).verify(body, headers), JSON.parse(body));
}
for (const [changedBody, changedHeaders] of [
  [`${body} `, headers],
  [body, { ...headers, "webhook-id": "other" }],
  [body, { ...headers, "webhook-timestamp": String(Number(headers["webhook-timestamp"]) - 1) }],
]) {
  assert.throws(() => new Webhook(secrets[0]).verify(changedBody, changedHeaders));
}

const probe = createServer().listen(0, "127.0.0.1");
await once(probe, "listening");
const { port } = probe.address();
probe.close();
const receiver = spawn(process.execPath, ["generated/receiver.mjs"], {
  env: { ...process.env, WEBHOOK_SECRET: secrets[0], PORT: String(port) },
});
let output = "";
receiver.stdout.on("data", (data) => (output += data));
try {
  const post = async (text) => {
    for (let attempt = 0; ; attempt++) {
      try {
        const request = { method: "POST", headers, body: text };
        return (await fetch(`http://127.0.0.1:${port}/hook`, request)).status;
      } catch (error) {
        if (attempt === 100) throw error;
        await setTimeout(100);
      }
    }
  };
  assert.equal(await post(body), 204);
  assert.equal(await post(body), 204);
  assert.equal(await post(`${body} `), 400);
  assert.equal(output.match(/referral\.confirmed/g).length, 1);
} finally {
  receiver.kill();
}
