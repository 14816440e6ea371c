// An identity provider nobody here wrote: npm's oidc-provider, which publishes the keys of a file.
// Its development pages log anybody in; the user's address is <login>@example.com.
import { readFileSync } from "node:fs";
import { Provider } from "oidc-provider";

const [port, keyFile] = process.argv.slice(2);
const audience = "shop";

const provider = new Provider(`http://127.0.0.1:${port}`, {
  jwks: JSON.parse(readFileSync(keyFile, "utf8")),
  cookies: { keys: ["of this test alone"] },
  claims: { openid: ["sub"], email: ["email", "email_verified"] },
  conformIdTokenClaims: false, // as Keycloak, Auth0 and Google: the ID token has the address
  findAccount: (_context, id) => ({
    accountId: id,
    claims: () => ({ sub: id, email: `${id}@example.com`, email_verified: true }),
  }),
  clients: [
    {
      client_id: audience,
      client_secret: "of this test alone",
      redirect_uris: ["https://shop.example/callback"],
      grant_types: ["authorization_code", "client_credentials"],
    },
  ],
  // The access token is a JWT for the product (RFC 9068); its algorithm ends the resource's name.
  extraTokenClaims: (_context, token) =>
    token.accountId && { email: `${token.accountId}@example.com`, email_verified: true },
  features: {
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_context, resource) => ({
        audience,
        scope: "",
        accessTokenFormat: "jwt",
        jwt: { sign: { alg: resource.split(":").at(-1) } },
      }),
    },
  },
});
provider.listen(Number(port), "127.0.0.1");
