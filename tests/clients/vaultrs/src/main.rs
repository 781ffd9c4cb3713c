//! What services in Rust do with vaultrs, each step checked. The address, the CA and the client
//! certificate come from the environment, where vaultrs looks for them itself.

use std::collections::HashMap;
use std::env;
use std::error::Error;

use rustify::errors::ClientError::ServerResponseError;
use serde::{Deserialize, Serialize};
use vaultrs::api::ResponseWrapper;
use vaultrs::api::database::requests::{PostgreSQLConnectionRequest, SetRoleRequest};
use vaultrs::api::kv2::requests::{ReadSecretRequest, SetSecretRequestOptions};
use vaultrs::api::token::requests::CreateTokenRequest;
use vaultrs::auth::approle;
use vaultrs::client::{Client, VaultClient, VaultClientSettingsBuilder};
use vaultrs::error::ClientError;
use vaultrs::{database, kv2, sys, token};

type Outcome = Result<(), Box<dyn Error>>;

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Secret {
    user: String,
    pass: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let root = client(&env::var("ROOT_TOKEN")?)?;
    server(&root).await?;
    secrets(&root).await?;
    policies(&root).await?;
    tokens(&root).await?;
    log_in(&root).await?;
    wrapping(&root).await?;
    credentials(&root).await?;
    println!("vaultrs is content");
    Ok(())
}

fn client(token: &str) -> Result<VaultClient, Box<dyn Error>> {
    let settings = VaultClientSettingsBuilder::default().token(token).build()?;
    assert!(settings.identity.is_some(), "there is a client certificate");
    Ok(VaultClient::new(settings)?)
}

/// The status of a refusal.
fn refused<T>(result: Result<T, ClientError>) -> u16 {
    match result {
        Err(ClientError::APIError { code, .. }) => code,
        // With data in place of errors, as a deleted version is answered.
        Err(ClientError::RestClientError { source: ServerResponseError { code, .. } }) => code,
        Err(other) => panic!("no answer: {other}"),
        Ok(_) => panic!("accepted"),
    }
}

async fn server(root: &VaultClient) -> Outcome {
    let health = sys::health(root).await?;
    assert!(health.initialized && !health.sealed && !health.standby);
    assert!(matches!(sys::status(root).await?, sys::ServerStatus::OK));
    sys::mount::enable(root, "plain", "kv", None).await?;
    let mounts = sys::mount::list(root).await?;
    assert_eq!(mounts["plain/"].mount_type, "kv");
    let one = sys::mount::get_configuration_of_a_secret_engine(root, "plain").await?;
    assert_eq!(one.accessor, mounts["plain/"].accessor);
    sys::mount::disable(root, "plain").await?;
    assert!(!sys::mount::list(root).await?.contains_key("plain/"));
    assert!(sys::auth::list(root).await?.contains_key("token/"));
    assert!(!sys::tools::random(root, None).await?.random_bytes.is_empty());
    Ok(())
}

async fn secrets(root: &VaultClient) -> Outcome {
    let first = Secret { user: "u".into(), pass: "1".into() };
    let options = SetSecretRequestOptions { cas: 0 };
    kv2::set_with_options(root, "secret", "app/rust", &first, options).await?;
    let again = SetSecretRequestOptions { cas: 0 };
    assert_eq!(
        refused(kv2::set_with_options(root, "secret", "app/rust", &first, again).await),
        400
    );
    let second = Secret { pass: "2".into(), ..first.clone() };
    assert_eq!(kv2::set(root, "secret", "app/rust", &second).await?.version, 2);
    assert_eq!(kv2::read::<Secret>(root, "secret", "app/rust").await?, second);
    assert_eq!(kv2::read_version::<Secret>(root, "secret", "app/rust", 1).await?, first);
    assert_eq!(kv2::list(root, "secret", "app").await?, ["rust"]);
    assert_eq!(kv2::read_metadata(root, "secret", "app/rust").await?.current_version, 2);
    kv2::delete_latest(root, "secret", "app/rust").await?;
    assert_eq!(refused(kv2::read::<Secret>(root, "secret", "app/rust").await), 404);
    kv2::undelete_versions(root, "secret", "app/rust", vec![2]).await?;
    kv2::destroy_versions(root, "secret", "app/rust", vec![1]).await?;
    assert_eq!(kv2::read::<Secret>(root, "secret", "app/rust").await?, second);
    kv2::delete_metadata(root, "secret", "app/rust").await?;
    assert_eq!(refused(kv2::read_metadata(root, "secret", "app/rust").await), 404);
    Ok(())
}

async fn policies(root: &VaultClient) -> Outcome {
    let text = "path \"secret/data/rust\" { capabilities = [\"read\"] }";
    sys::policy::set(root, "rust", text).await?;
    assert!(sys::policy::list(root).await?.policies.contains(&"rust".to_owned()));
    assert_eq!(sys::policy::read(root, "rust").await?.rules, text);
    Ok(())
}

async fn tokens(root: &VaultClient) -> Outcome {
    let mut asked = CreateTokenRequest::builder();
    asked.policies(vec!["rust".to_owned()]).ttl("1h");
    asked.meta(HashMap::from([("job".to_owned(), "nightly".to_owned())]));
    let made = token::new(root, Some(&mut asked)).await?;
    assert_eq!((made.lease_duration, made.renewable), (3600, true));
    let own = client(&made.client_token)?;
    let known = own.lookup().await?;
    assert_eq!(known.policies, ["default", "rust"]);
    assert_eq!(known.meta.unwrap_or_default()["job"], "nightly");
    assert_eq!(token::lookup(root, &made.client_token).await?.accessor, made.accessor);
    assert_eq!(token::lookup_accessor(root, &made.accessor).await?.accessor, made.accessor);
    assert!(own.renew(Some("30m")).await?.lease_duration <= 3600);
    assert!(token::renew_accessor(root, &made.accessor, None).await?.renewable);
    assert_eq!(refused(kv2::list(&own, "secret", "app").await), 403);
    token::revoke_accessor(root, &made.accessor).await?;
    assert_eq!(refused(own.lookup().await), 403);
    let other = token::new_orphan(root, None).await?;
    assert!(other.orphan);
    client(&other.client_token)?.revoke().await?;
    Ok(())
}

async fn log_in(root: &VaultClient) -> Outcome {
    sys::auth::enable(root, "rust-roles", "approle", None).await?;
    let at = "rust-roles";
    let mut role = vaultrs::api::auth::approle::requests::SetAppRoleRequest::builder();
    role.token_policies(vec!["rust".to_owned()]).token_ttl("10m").secret_id_num_uses(1_u64);
    approle::role::set(root, at, "job", Some(&mut role)).await?;
    assert_eq!(approle::role::list(root, at).await?.keys, ["job"]);
    let read = approle::role::read(root, at, "job").await?;
    assert_eq!((read.token_ttl, read.secret_id_num_uses), (600, 1));
    let id = approle::role::read_id(root, at, "job").await?.role_id;
    let secret = approle::role::secret::generate(root, at, "job", None).await?;
    let nobody = client("")?;
    let auth = approle::login(&nobody, at, &id, &secret.secret_id).await?;
    assert_eq!(auth.policies, ["default", "rust"]);
    client(&auth.client_token)?.lookup().await?;
    // It had one use.
    assert_eq!(refused(approle::login(&nobody, at, &id, &secret.secret_id).await), 400);
    sys::auth::disable(root, at).await?;
    Ok(())
}

async fn wrapping(root: &VaultClient) -> Outcome {
    let secret = Secret { user: "u".into(), pass: "p".into() };
    kv2::set(root, "secret", "rust", &secret).await?;
    let request = ReadSecretRequest::builder().mount("secret").path("rust").build()?;
    let wrapped = request.wrap(root).await?;
    assert_eq!(wrapped.lookup(root).await?.creation_path, "secret/data/rust");
    let nobody = client("")?;
    let opened = wrapped.unwrap(&nobody).await?;
    assert_eq!(opened.data["pass"], "p");
    assert!(matches!(refused(wrapped.unwrap(&nobody).await), 400 | 403));
    Ok(())
}

async fn credentials(root: &VaultClient) -> Outcome {
    sys::mount::enable(root, "rust-db", "database", None).await?;
    let mut connection = PostgreSQLConnectionRequest::builder();
    connection
        .plugin_name("postgresql-database-plugin")
        .connection_url(env::var("DATABASE_URL")?)
        .username(env::var("DATABASE_USER")?)
        .password(env::var("DATABASE_PASSWORD")?)
        .allowed_roles(vec!["*".to_owned()]);
    database::connection::postgres(root, "rust-db", "pg", Some(&mut connection)).await?;
    assert_eq!(database::connection::list(root, "rust-db").await?.keys, ["pg"]);
    let mut role = SetRoleRequest::builder();
    role.db_name("pg").default_ttl("1h").max_ttl("2h").creation_statements(vec![
        "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"
            .to_owned(),
    ]);
    database::role::set(root, "rust-db", "reader", Some(&mut role)).await?;
    assert_eq!(database::role::read(root, "rust-db", "reader").await?.default_ttl, 3600);
    let leased = database::role::creds(root, "rust-db", "reader").await?;
    assert!(leased.username.starts_with("v-") && !leased.password.is_empty());
    // Takes the user back as well.
    sys::mount::disable(root, "rust-db").await?;
    Ok(())
}
