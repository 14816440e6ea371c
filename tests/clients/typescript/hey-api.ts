// The journey with the client of hey-api, on the server that the document names.
import assert from "node:assert/strict";
import { client } from "./generated/hey-api/client.gen.js";
import * as api from "./generated/hey-api/index.js";

const password = "correct horse battery";
const newEmail = () => `${crypto.randomUUID()}@example.com`;

// Register and sign in.
const email = newEmail();
const registered = await api.registerUser({ body: { email, password } });
assert(registered.data, registered.error?.detail);
assert.equal(registered.data.email, email);

const tokens = await api.issueToken({ body: { grant_type: "password", username: email, password } });
assert(tokens.data);
client.setConfig({ auth: tokens.data.access_token });

// Create a code and look it up.
const created = await api.createCode({ body: { lifetime_minutes: 60 } });
assert(created.data, created.error?.detail);
const code = created.data;
assert.equal(code.status, "active");

const found = await api.lookUpCode({ query: { email } });
assert.equal(found.data?.code, code.code);

// Two users join, and the owner lists them page by page.
const joined: string[] = [];
for (const user of [newEmail(), newEmail()]) {
  const answer = await api.registerUser({
    body: { email: user, password, referral_code: code.code, locale: "ru" },
  });
  assert(answer.data, answer.error?.detail);
  joined.unshift(user);
}
const listed: (string | null | undefined)[] = [];
let cursor: string | null | undefined;
do {
  const page = await api.listMyReferrals({ query: cursor ? { limit: 1, cursor } : { limit: 1 } });
  assert(page.data, page.error?.detail);
  listed.push(...page.data.items.map((referral) => referral.email));
  cursor = page.data.next_cursor;
} while (cursor);
assert.deepEqual(listed, joined);

// Problems of one status are told apart.
const second = await api.createCode({ body: { lifetime_minutes: 60 } });
assert.equal(second.response?.status, 409);
assert.equal(second.error?.code, "active-code-exists");
assert.equal(second.error.errors, undefined);

const taken = await api.createCode({
  body: { lifetime_minutes: 60, code: code.code, replace: true },
});
assert.equal(taken.response?.status, 409);
assert.equal(taken.error?.code, "code-taken");

// The QR code is a picture.
const path = { code_id: code.id };
const png = await api.getCodeQrPng({ path });
assert(png.data);
const bytes = new Uint8Array(await png.data.arrayBuffer());
assert.deepEqual([...bytes.subarray(0, 4)], [0x89, 0x50, 0x4e, 0x47]);

// Delete the code and the account.
const deleted = await api.deleteCode({ path });
assert.equal(deleted.response?.status, 204);
const erased = await api.deleteMe({ body: { password } });
assert.equal(erased.response?.status, 204);
