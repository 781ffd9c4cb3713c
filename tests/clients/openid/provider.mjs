// The certified OpenID provider `oidc-provider`, with clients that the tests know. Arguments: a port, and
// the addresses that browsers may come back to.

import { generateKeyPairSync } from "node:crypto";
import Provider from "oidc-provider";

const [port, ...redirectUris] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
const key = { ...privateKey.export({ format: "jwk" }), use: "sig", alg: "RS256", kid: "provider-1" };

const browser = {
  application_type: "native",
  grant_types: ["authorization_code"],
  response_types: ["code"],
  redirect_uris: redirectUris,
};
const provider = new Provider(issuer, {
  clients: [
    { ...browser, client_id: "broker", client_secret: "client-secret-1" },
    {
      ...browser,
      client_id: "poster",
      client_secret: "client-secret-2",
      token_endpoint_auth_method: "client_secret_post",
    },
    { ...browser, client_id: "public", token_endpoint_auth_method: "none" },
    {
      client_id: "robot",
      client_secret: "client-secret-3",
      grant_types: ["client_credentials"],
      response_types: [],
      redirect_uris: [],
    },
  ],
  jwks: { keys: [key] },
  cookies: { keys: ["only for tests"] },
  pkce: { required: () => true },
  claims: { openid: ["sub"], email: ["email"], groups: ["groups"] },
  scopes: ["openid", "email", "groups", "api"],
  async findAccount(_ctx, sub) {
    const claims = { sub, email: `${sub}@example.org`, groups: ["staff", `team-${sub}`] };
    return { accountId: sub, claims: async () => claims };
  },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: (_ctx, client) => (client.clientId === "robot" ? "urn:broker" : undefined),
      getResourceServerInfo: () => ({
        scope: "api",
        audience: "urn:broker",
        accessTokenFormat: "jwt",
        jwt: { sign: { alg: "RS256" } },
      }),
      useGrantedResource: () => true,
    },
  },
});
provider.listen(Number(port), "127.0.0.1", () => console.log("ready"));
