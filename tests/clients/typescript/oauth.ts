// OAuth libraries: openid-client and oauth4webapi, with their default client authentication.
import assert from "node:assert/strict";
import * as oauth from "oauth4webapi";
import * as openid from "openid-client";

const [url, clientId, clientSecret] = process.argv.slice(2);
assert(url && clientId && clientSecret);
const password = "correct horse battery";

// Discovery (RFC 8414).
const options = { algorithm: "oauth2" as const, execute: [openid.allowInsecureRequests] };
const client = await openid.discovery(new URL(url), clientId, clientSecret, undefined, options);
const users = await openid.discovery(
  new URL(url),
  "first-party",
  undefined,
  openid.None(),
  options,
);
const server = client.serverMetadata();

// A user signs in, calls the API and refreshes the tokens.
const email = `${crypto.randomUUID()}@example.com`;
const registered = await fetch(new URL("/api/v1/auth/register", url), {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ email, password }),
});
assert.equal(registered.status, 201);
const first = await openid.genericGrantRequest(users, "password", { username: email, password });
assert(first.refresh_token);
const second = await openid.refreshTokenGrant(users, first.refresh_token);
assert(second.refresh_token);
const me = new URL("/api/v1/me", url);
const answer = await openid.fetchProtectedResource(users, second.access_token, me, "GET");
const user = (await answer.json()) as { id: string; email: string };
assert.equal(user.email, email);

// Any service can validate the access token (RFC 9068).
const http = { [oauth.allowInsecureRequests]: true };
const bearer = (token: string) =>
  new Request(me, { headers: { Authorization: `Bearer ${token}` } });
const validate = (token: string, audience = server.issuer) =>
  oauth.validateJwtAccessToken(server, bearer(token), audience, http);
const claims = await validate(second.access_token);
assert.equal(claims.sub, user.id);
await assert.rejects(validate(second.access_token, "https://other.example"));

// A client gets a token, by both ways of authentication.
const granted = await openid.clientCredentialsGrant(client, { scope: "codes:read" });
assert.equal((await validate(granted.access_token)).client_id, clientId);
const basic = oauth.ClientSecretBasic(clientSecret);
const self = { client_id: clientId };
const response = await oauth.clientCredentialsGrantRequest(server, self, basic, {}, http);
const processed = await oauth.processClientCredentialsResponse(server, self, response);
assert.equal(processed.scope, "codes:read referrals:read");

// It introspects tokens, until they are revoked.
const active = await openid.tokenIntrospection(client, second.access_token);
assert.deepEqual([active.active, active.sub], [true, user.id]);
await openid.tokenRevocation(users, second.refresh_token);
assert.equal((await openid.tokenIntrospection(client, second.access_token)).active, false);
await assert.rejects(openid.refreshTokenGrant(users, second.refresh_token), {
  error: "invalid_grant",
});
await openid.tokenRevocation(client, granted.access_token);
