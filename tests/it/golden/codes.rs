//! Answers of the engines of codes, of certificates for SSH, and of passwords that work once.

use serde_json::json;

use super::stage::Stage;

#[tokio::test]
async fn keys_and_codes_answer_as_recorded() {
    let mut stage = Stage::open("totp").await;
    stage.list("totp/keys").await;
    let new = json!({ "generate": true, "issuer": "Corp", "account_name": "ann@corp.example" });
    stage.post("totp/keys/ann", new).await;
    let quiet = json!({
        "generate": true, "exported": false, "issuer": "Corp", "account_name": "bob",
        "period": 3600,
    });
    stage.post("totp/keys/bob", quiet).await;
    stage.post("totp/keys/carl", json!({ "key": "not base32" })).await;
    let key = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
    let url = format!("otpauth://totp/Corp:carl?secret={key}&algorithm=SHA256&digits=8");
    stage.post("totp/keys/carl", json!({ "url": url })).await;
    stage.post("totp/keys/dora", json!({})).await;
    for name in ["ann", "carl", "none"] {
        stage.get(&format!("totp/keys/{name}")).await;
    }
    stage.list("totp/keys").await;
    let answer = stage.get("totp/code/bob").await;
    let code = json!({ "code": answer["data"]["code"] });
    stage.get("totp/code/none").await;
    stage.post("totp/code/bob", code.clone()).await;
    stage.post("totp/code/bob", code.clone()).await;
    for _ in 0..4 {
        stage.post("totp/code/bob", json!({ "code": "x" })).await;
    }
    stage.post("totp/code/bob", code.clone()).await;
    stage.post("totp/keys/bob/unlock", json!({})).await;
    stage.post("totp/code/bob", code).await;
    stage.post("totp/code/bob", json!({})).await;
    stage.post("totp/code/none", json!({ "code": "123456" })).await;
    stage.post("totp/keys/none/unlock", json!({})).await;
    stage.delete("totp/keys/bob").await;
    stage.delete("totp/keys/bob").await;
    stage.finish();
}

#[tokio::test]
async fn certificates_for_ssh_answer_as_recorded() {
    let mut stage = Stage::open("ssh").await;
    stage.get("ssh/config/ca").await;
    stage.get("ssh/public_key").await;
    stage.post("ssh/config/ca", json!({ "private_key": "nothing" })).await;
    let made = stage.post("ssh/config/ca", json!({})).await;
    stage.post("ssh/config/ca", json!({})).await;
    stage.get("ssh/config/ca").await;
    stage.get("ssh/public_key").await;
    stage.list("ssh/roles").await;
    let role = json!({
        "key_type": "ca", "allow_user_certificates": true, "allowed_users": "app,deploy",
        "default_user": "app", "ttl": "30m", "max_ttl": "1h",
        "default_extensions": { "permit-pty": "" }, "allowed_user_key_lengths": { "rsa": 3072, "ed25519": 0 },
    });
    stage.post("ssh/roles/web", role).await;
    stage.post("ssh/roles/bad", json!({ "key_type": "ca" })).await;
    stage.get("ssh/roles/web").await;
    let templated = json!({
        "key_type": "ca", "allow_user_certificates": true,
        "allowed_users": "{{identity.entity.name}}", "allowed_users_template": true,
    });
    stage.post("ssh/roles/own", templated).await;
    stage.get("ssh/roles/own").await;
    let unknown = json!({
        "key_type": "ca", "allow_user_certificates": true,
        "allowed_users": "{{token}}", "allowed_users_template": true,
    });
    stage.post("ssh/roles/bad", unknown).await;
    stage.get("ssh/roles/none").await;
    let key = json!({ "public_key": made["data"]["public_key"] });
    let with = |name: &str, value: serde_json::Value| {
        let mut body = key.clone();
        body[name] = value;
        body
    };
    stage.post("ssh/sign/web", key.clone()).await;
    stage.post("ssh/sign/web", with("ttl", json!("5h"))).await;
    stage.post("ssh/sign/web", with("valid_principals", json!("root"))).await;
    stage.post("ssh/sign/web", with("cert_type", json!("host"))).await;
    stage.post("ssh/sign/web", with("critical_options", json!({ "force-command": "x" }))).await;
    stage.post("ssh/sign/web", with("extensions", json!({ "permit-X11-forwarding": "" }))).await;
    stage.post("ssh/sign/web", with("key_id", json!("mine"))).await;
    stage.post("ssh/sign/none", key.clone()).await;
    stage.get("ssh/krl").await;
    stage.post("ssh/revoke", json!({})).await;
    stage.post("ssh/revoke", json!({ "serial_number": "00000000000000ff" })).await;
    stage.post("ssh/revoke", json!({ "serial": "255" })).await;
    stage.post("ssh/revoke", json!({ "key_id": "lost laptop" })).await;
    stage.post("ssh/unrevoke", json!({ "serial": "255" })).await;
    stage.get("ssh/revoked").await;
    stage.post("ssh/issue/web", json!({})).await;
    stage.post("ssh/issue/web", json!({ "key_type": "ec" })).await;
    stage.post("ssh/creds/web", json!({ "ip": "10.1.2.3" })).await;

    let otp = json!({ "key_type": "otp", "default_user": "app", "cidr_list": "10.0.0.0/8" });
    stage.post("ssh/roles/otp", otp).await;
    stage.get("ssh/roles/otp").await;
    stage.list("ssh/roles").await;
    let at = |ip: &str| json!({ "ip": ip });
    let made = stage.post("ssh/creds/otp", at("10.1.2.3")).await;
    stage.post("ssh/creds/otp", at("11.1.2.3")).await;
    stage.post("ssh/creds/otp", at("somewhere")).await;
    stage.post("ssh/sign/otp", key).await;
    stage.post("ssh/lookup", at("10.1.2.3")).await;
    let otp = json!({ "otp": made["data"]["key"] });
    stage.post("ssh/verify", otp.clone()).await;
    stage.post("ssh/verify", otp).await;
    stage.post("ssh/verify", json!({ "otp": "verify-echo-request" })).await;
    stage.get("ssh/config/zeroaddress").await;
    stage.post("ssh/config/zeroaddress", json!({ "roles": "web" })).await;
    stage.post("ssh/config/zeroaddress", json!({ "roles": "otp" })).await;
    stage.get("ssh/config/zeroaddress").await;
    stage.delete("ssh/config/zeroaddress").await;
    stage.delete("ssh/roles/otp").await;
    stage.delete("ssh/config/ca").await;
    stage.finish();
}
