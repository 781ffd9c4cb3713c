// What services in Node do with node-vault, each step checked. Run by test_languages.py.

'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const nodeVault = require('node-vault');

const env = process.env;
const tls = {
    ca: fs.readFileSync(env.CACERT),
    cert: fs.readFileSync(env.CLIENT_CERT),
    key: fs.readFileSync(env.CLIENT_KEY),
};
const client = (token) => nodeVault({ endpoint: env.ADDRESS, token, requestOptions: tls });
const refused = (promise, status) =>
    assert.rejects(promise, (error) => error.response && error.response.statusCode === status);

const server = async (root) => {
    assert.equal((await root.initialized()).initialized, true);
    assert.equal((await root.status()).sealed, false);
    assert.equal((await root.health()).initialized, true);
    await root.mount({ mount_point: 'node-kv', type: 'kv', options: { version: '1' } });
    assert.equal((await root.mounts()).data['node-kv/'].type, 'kv');
    await root.write('node-kv/a', { k: 'v' });
    assert.deepEqual((await root.read('node-kv/a')).data, { k: 'v' });
    assert.deepEqual((await root.list('node-kv')).data.keys, ['a']);
    await root.delete('node-kv/a');
    await refused(root.read('node-kv/a'), 404);
    await root.unmount({ mount_point: 'node-kv' });
    assert.equal((await root.mounts()).data['node-kv/'], undefined);
    const help = await root.help('secret/data/x');
    assert.match(help.help, /versions of a secret/);
    assert.equal(help.openapi.openapi, '3.1.0');
};

const secrets = async (root) => {
    await root.write('secret/data/node', { data: { a: '1' }, options: { cas: 0 } });
    await refused(root.write('secret/data/node', { data: {}, options: { cas: 0 } }), 400);
    await root.update('secret/data/node', { data: { b: '2' } });
    const read = (await root.read('secret/data/node')).data;
    assert.deepEqual(read.data, { a: '1', b: '2' });
    assert.equal(read.metadata.version, 2);
    assert.ok((await root.list('secret/metadata')).data.keys.includes('node'));
    await root.delete('secret/data/node');
    await refused(root.read('secret/data/node'), 404);
    await root.delete('secret/metadata/node');
};

const policies = async (root) => {
    const rules = 'path "secret/data/node" { capabilities = ["read"] }';
    await root.addPolicy({ name: 'node', rules });
    assert.equal((await root.getPolicy({ name: 'node' })).data.rules, rules);
    assert.ok((await root.policies()).data.policies.includes('node'));
};

const tokens = async (root) => {
    // Whoever makes a token goes on with it.
    const maker = client(env.ROOT_TOKEN);
    const made = (await maker.tokenCreate({ policies: ['node'], ttl: '1h', meta: { job: 'x' } })).auth;
    assert.equal(maker.token, made.client_token);
    assert.deepEqual([made.lease_duration, made.renewable], [3600, true]);
    const own = client(made.client_token);
    assert.deepEqual((await own.tokenLookupSelf()).data.policies, ['default', 'node']);
    const { accessor } = made;
    assert.equal((await root.tokenLookup({ token: made.client_token })).data.accessor, accessor);
    assert.equal((await root.tokenLookupAccessor({ accessor })).data.accessor, accessor);
    assert.ok((await own.tokenRenewSelf({ increment: '30m' })).auth.lease_duration <= 3600);
    await refused(own.list('secret/metadata'), 403);
    await root.tokenRevokeAccessor({ accessor });
    await refused(own.tokenLookupSelf(), 403);
};

const logIn = async (root) => {
    await root.enableAuth({ mount_point: 'node-roles', type: 'approle' });
    const at = { mount_point: 'node-roles', role_name: 'job' };
    await root.addApproleRole({ ...at, policies: 'node', secret_id_num_uses: 1 });
    assert.deepEqual((await root.approleRoles(at)).data.keys, ['job']);
    const { role_id } = (await root.getApproleRoleId(at)).data;
    const { secret_id } = (await root.getApproleRoleSecret(at)).data;
    const nobody = client();
    const login = { mount_point: 'node-roles', role_id, secret_id };
    assert.deepEqual((await nobody.approleLogin(login)).auth.policies, ['default', 'node']);
    // The log-in left its token with the client.
    assert.equal((await nobody.tokenLookupSelf()).data.renewable, true);
    await refused(client().approleLogin(login), 400);
    await root.disableAuth({ mount_point: 'node-roles' });
};

const wrapping = async (root) => {
    const headers = { 'X-Vault-Wrap-TTL': '60s' };
    const wrapped = await root.write('sys/wrapping/wrap', { a: 'b' }, { headers });
    assert.equal(wrapped.wrap_info.ttl, 60);
    const { token } = wrapped.wrap_info;
    assert.deepEqual((await client().unwrap({ token })).data, { a: 'b' });
    await refused(client().unwrap({ token }), 400);
};

const credentials = async (root) => {
    await root.mount({ mount_point: 'node-db', type: 'database' });
    await root.write('node-db/config/pg', {
        plugin_name: 'postgresql-database-plugin',
        connection_url: env.DATABASE_URL,
        username: env.DATABASE_USER,
        password: env.DATABASE_PASSWORD,
        allowed_roles: '*',
    });
    await root.write('node-db/roles/reader', {
        db_name: 'pg',
        default_ttl: '1h',
        creation_statements:
            'CREATE ROLE "{{name}}" WITH LOGIN PASSWORD \'{{password}}\' ' +
            'VALID UNTIL \'{{expiration}}\'',
    });
    const leased = await root.generateDatabaseCredentials({ databasePath: 'node-db', name: 'reader' });
    assert.match(leased.data.username, /^v-/);
    assert.equal(leased.lease_duration, 3600);
    assert.equal((await root.renew({ lease_id: leased.lease_id })).lease_id, leased.lease_id);
    await root.revoke({ lease_id: leased.lease_id });
    await root.unmount({ mount_point: 'node-db' });
};

const main = async () => {
    const root = client(env.ROOT_TOKEN);
    for (const step of [server, secrets, policies, tokens, logIn, wrapping, credentials]) {
        await step(root);
    }
    console.log('node-vault is content');
};

main().catch((error) => {
    console.error(error);
    process.exitCode = 1;
});
