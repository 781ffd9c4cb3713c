// Logs in with node-vault by a password and by a role ID, with no client certificate, and reads a secret
// each time. Run by test_languages.py.

'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const nodeVault = require('node-vault');

const env = process.env;
const client = () =>
    nodeVault({ endpoint: env.ADDRESS, requestOptions: { ca: fs.readFileSync(env.CACERT) } });

const main = async () => {
    const byPassword = client();
    await assert.rejects(byPassword.read(env.SECRET), (error) => error.response.statusCode === 403);
    const wrong = { username: env.NAME, password: 'wrong' };
    await assert.rejects(byPassword.userpassLogin(wrong), (e) => e.response.statusCode === 400);
    await byPassword.userpassLogin({ username: env.NAME, password: env.PASSWORD });
    const byRole = client();
    await byRole.approleLogin({ role_id: env.ROLE_ID, secret_id: env.SECRET_ID });
    for (const one of [byPassword, byRole]) {
        assert.equal((await one.read(env.SECRET)).data.data.greeting, 'hello');
    }
    console.log('node-vault is content');
};

main().catch((error) => {
    console.error(error);
    process.exitCode = 1;
});
