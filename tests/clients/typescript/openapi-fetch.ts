// The journey with openapi-typescript's types and openapi-fetch.
import assert from "node:assert/strict";
import createClient, { type Middleware } from "openapi-fetch";
import type { paths } from "./generated/openapi-typescript.js";

const baseUrl = process.argv[2];
assert(baseUrl);
const api = createClient<paths>({ baseUrl });
const form = { "Content-Type": "application/x-www-form-urlencoded" };
const password = "correct horse battery";
const newEmail = () => `${crypto.randomUUID()}@example.com`;

// Register and sign in.
const email = newEmail();
const registered = await api.POST("/api/v1/auth/register", { body: { email, password } });
assert(registered.data, registered.error?.detail);
assert.equal(registered.data.email, email);

const tokens = await api.POST("/api/v1/auth/token", {
  body: { grant_type: "password", username: email, password },
  headers: form,
});
assert(tokens.data);
const accessToken = tokens.data.access_token;
const bearer: Middleware = {
  onRequest({ request }) {
    request.headers.set("Authorization", `Bearer ${accessToken}`);
    return request;
  },
};
api.use(bearer);

// Create a code and look it up.
const created = await api.POST("/api/v1/me/codes", { body: { lifetime_minutes: 60 } });
assert(created.data, created.error?.detail);
const code = created.data;
assert.equal(code.status, "active");

const found = await api.GET("/api/v1/codes/lookup", { params: { query: { email } } });
assert.equal(found.data?.code, code.code);

// Two users join, and the owner lists them page by page.
const joined: string[] = [];
for (const user of [newEmail(), newEmail()]) {
  const answer = await api.POST("/api/v1/auth/register", {
    body: { email: user, password, referral_code: code.code, locale: "ru" },
  });
  assert(answer.data, answer.error?.detail);
  joined.unshift(user);
}
const listed: (string | null | undefined)[] = [];
let cursor: string | null | undefined;
do {
  const page = await api.GET("/api/v1/me/referrals", {
    params: { query: cursor ? { limit: 1, cursor } : { limit: 1 } },
  });
  assert(page.data, page.error?.detail);
  listed.push(...page.data.items.map((referral) => referral.email));
  cursor = page.data.next_cursor;
} while (cursor);
assert.deepEqual(listed, joined);

// Problems of one status are told apart.
const second = await api.POST("/api/v1/me/codes", { body: { lifetime_minutes: 60 } });
assert(second.error && "code" in second.error);
assert.equal(second.response.status, 409);
assert.equal(second.error.code, "active-code-exists");
assert.equal(second.error.errors, undefined);

const taken = await api.POST("/api/v1/me/codes", {
  body: { lifetime_minutes: 60, code: code.code, replace: true },
});
assert.equal(taken.response.status, 409);
assert.equal(taken.error?.code, "code-taken");

// The QR code is a picture.
const path = { code_id: code.id };
const png = await api.GET("/api/v1/me/codes/{code_id}/qr.png", {
  params: { path },
  parseAs: "arrayBuffer",
});
assert(png.data);
assert.deepEqual([...new Uint8Array(png.data, 0, 4)], [0x89, 0x50, 0x4e, 0x47]);

// Delete the code and the account.
const deleted = await api.DELETE("/api/v1/me/codes/{code_id}", { params: { path } });
assert.equal(deleted.response.status, 204);
const erased = await api.DELETE("/api/v1/me", { body: { password } });
assert.equal(erased.response.status, 204);
