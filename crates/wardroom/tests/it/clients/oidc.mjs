// A provider of OpenID Connect (npm oidc-provider) for the tests: arguments are its port and the URL of Wardroom. Whoever
// comes is alice, of the group sre, once the page of the login was sent; nothing is typed in.
import http from "node:http";
import { Provider } from "oidc-provider";

const [port, wardroom] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const claims = { preferred_username: "alice", groups: ["sre", "football"] };

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: "wardroom",
      client_secret: "s3cret-of-the-client",
      redirect_uris: [`${wardroom}/auth/oidc/corp/callback`],
      grant_types: ["authorization_code"],
    },
    {
      client_id: "wardroom-approvals",
      token_endpoint_auth_method: "none",
      redirect_uris: [`${wardroom}/auth/oidc/corp/approved`],
      grant_types: ["authorization_code"],
    },
  ],
  claims: { openid: ["sub", "preferred_username", "groups"] },
  conformIdTokenClaims: false,
  pkce: { required: () => true },
  cookies: { keys: ["test"] },
  features: { devInteractions: { enabled: false } },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, ...claims }) }),
});

const interact = async (request, response) => {
  const { prompt, params, session } = await provider.interactionDetails(request, response);
  let result;
  if (prompt.name === "login") {
    result = { login: { accountId: "0001" } };
  } else {
    const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    grant.addOIDCScope("openid");
    result = { consent: { grantId: await grant.save() } };
  }
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
};

const handle = provider.callback();
const server = http.createServer((request, response) => {
  if (!request.url.startsWith("/interaction/")) return handle(request, response);
  interact(request, response).catch((error) => {
    response.statusCode = 500;
    response.end(String(error));
  });
});
server.listen(Number(port), "127.0.0.1", () => console.log("ready"));
