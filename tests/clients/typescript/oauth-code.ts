// OAuth libraries: sign-in by authorization code with openid-client and oauth4webapi.
import assert from "node:assert/strict";
import * as oauth from "oauth4webapi";
import * as openid from "openid-client";

const [url, clientId, clientSecret, publicClientId] = process.argv.slice(2);
assert(url && clientId && clientSecret && publicClientId);
const password = "correct horse battery";
const redirectUri = "http://127.0.0.1:49152/callback";
const email = `${crypto.randomUUID()}@example.com`;
const registered = await fetch(new URL("/api/v1/auth/register", url), {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ email, password }),
});
assert.equal(registered.status, 201);

// A browser: the user logs in on the page, and returns to the client.
async function logIn(authorizationUrl: URL): Promise<URL> {
  const follow = (response: Response) => new URL(response.headers.get("Location") ?? "", url);
  const redirect = "manual" as const;
  const login = follow(await fetch(authorizationUrl, { redirect }));
  const page = await fetch(login);
  const html = await page.text();
  const token = /name="form_token" value="(\w+)"/.exec(html)?.[1] ?? "";
  const cookies = (response: Response) =>
    response.headers.getSetCookie().map((cookie) => cookie.split(";")[0]).join("; ");
  const body = new URLSearchParams({ form_token: token, email, password });
  const headers = { Cookie: cookies(page), "Sec-Fetch-Site": "same-origin" };
  const sent = await fetch(login, { method: "POST", body, headers, redirect });
  assert.equal(sent.status, 303);
  return follow(await fetch(follow(sent), { headers: { Cookie: cookies(sent) }, redirect }));
}

// openid-client, as a client with a secret and as a public one.
const options = { algorithm: "oauth2" as const, execute: [openid.allowInsecureRequests] };
for (const [id, secret] of [[clientId, clientSecret], [publicClientId]] as const) {
  const authentication = secret === undefined ? openid.None() : openid.ClientSecretBasic(secret);
  const client = await openid.discovery(new URL(url), id, secret, authentication, options);
  const pkceCodeVerifier = openid.randomPKCECodeVerifier();
  const expectedState = openid.randomState();
  const answer = await logIn(
    openid.buildAuthorizationUrl(client, {
      redirect_uri: redirectUri,
      code_challenge: await openid.calculatePKCECodeChallenge(pkceCodeVerifier),
      code_challenge_method: "S256",
      state: expectedState,
    }),
  );
  const checks = { pkceCodeVerifier, expectedState };
  const tokens = await openid.authorizationCodeGrant(client, answer, checks);
  assert(tokens.refresh_token);
  const refreshed = await openid.refreshTokenGrant(client, tokens.refresh_token);
  const me = new URL("/api/v1/me", url);
  const user = await openid.fetchProtectedResource(client, refreshed.access_token, me, "GET");
  assert.equal(((await user.json()) as { email: string }).email, email);
  await assert.rejects(openid.authorizationCodeGrant(client, answer, checks), {
    error: "invalid_grant",
  });
}

// oauth4webapi checks the issuer of the response (RFC 9207).
const http = { [oauth.allowInsecureRequests]: true };
const issuer = new URL(url);
const discovery = await oauth.discoveryRequest(issuer, { algorithm: "oauth2", ...http });
const server = await oauth.processDiscoveryResponse(issuer, discovery);
assert.equal(server.authorization_response_iss_parameter_supported, true);
const self = { client_id: publicClientId };
const verifier = oauth.generateRandomCodeVerifier();
const request = new URL(server.authorization_endpoint ?? "");
request.search = new URLSearchParams({
  response_type: "code",
  client_id: publicClientId,
  redirect_uri: redirectUri,
  code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
  code_challenge_method: "S256",
}).toString();
const answer = await logIn(request);
const parameters = oauth.validateAuthResponse(server, self, answer, oauth.expectNoState);
const response = await oauth.authorizationCodeGrantRequest(
  server,
  self,
  oauth.None(),
  parameters,
  redirectUri,
  verifier,
  http,
);
const tokens = await oauth.processAuthorizationCodeResponse(server, self, response);
assert.equal(tokens.scope, "account");
answer.searchParams.set("iss", "https://other.example");
assert.throws(() => oauth.validateAuthResponse(server, self, answer, oauth.expectNoState));
