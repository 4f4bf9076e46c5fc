// A real identity provider: one organization's people, told by a file of settings, at http://localhost:<port>.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const [, , settings, modules] = process.argv;
const { Provider } = createRequire(`${modules}/`)('oidc-provider');
const { port, jwks, clients, people } = JSON.parse(readFileSync(settings, 'utf8'));

const provider = new Provider(`http://localhost:${port}`, {
  jwks,
  clients,
  cookies: { keys: ['of a test alone'] },
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name', 'groups'] },
  features: { backchannelLogout: { enabled: true }, rpInitiatedLogout: { enabled: true }, devInteractions: { enabled: true } },
  pkce: { required: () => true },
  ttl: { AccessToken: 600, IdToken: 600, AuthorizationCode: 60, Interaction: 600, Session: 3600, Grant: 3600 },
  // it tells nobody on its own machine of a sign-out, unless it is let
  fetch: (url, { dispatcher, ...options }) => fetch(url, options),
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, email: id, email_verified: true, name: id.split('@')[0], ...people[id] }),
  }),
  async loadExistingGrant(ctx) {
    const grant = new ctx.oidc.provider.Grant({ clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId });
    grant.addOIDCScope('openid email profile');
    await grant.save();
    return grant;
  },
});
provider.on('backchannel.error', (ctx, error) => console.log('told nobody of a sign-out:', error));
provider.listen(port, '127.0.0.1', () => console.log('ready'));
