//! Passwords by the password policy that a database names.

use leasehold::core::passwords::PasswordPolicies;
use leasehold::core::policy::password::PasswordPolicy;
use leasehold::types::secret::SecretString;
use serde_json::{Value, json};

use super::{CREATE, Mount, issues, text, with_own_root};

/// Everything that an ASCII password can hold, and as long as one can be.
fn hostile() -> String {
    let charset: String = (' '..='~').collect();
    let rules = json!([
        { "charset": { "charset": charset } },
        { "charset": { "charset": "'\"\\`${}%@:/?#&; ", "min-chars": 40 } },
    ]);
    json!({ "length": 100, "rule": rules }).to_string()
}

async fn store(mount: &Mount, name: &str, policy: &str) {
    policies(mount).set(name, policy.to_owned()).await.unwrap();
}

fn policies(mount: &Mount) -> PasswordPolicies {
    PasswordPolicies::new(mount.view.records().clone())
}

fn follows(policy: &str, password: &str) -> bool {
    PasswordPolicy::parse(policy).unwrap().satisfied_by(&SecretString::new(password.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_password_follows_the_policy_of_its_database() {
    let (mount, root) = with_own_root().await;
    let policy = hostile();
    store(&mount, "hostile", &policy).await;
    mount.write("config/pg", json!({ "password_policy": "hostile" })).await.unwrap();
    assert_eq!(mount.read("config/pg").await["password_policy"], "hostile");

    let plan = mount.plan("c", "r").await.unwrap();
    let leased = mount.issue(&plan).await.unwrap();
    let (user, password) = (leased["username"].as_str(), leased["password"].as_str());
    assert!(follows(&policy, password.unwrap()));
    assert!(mount.lets_in(user.unwrap(), password.unwrap()));
    mount.revoke(&plan).await.unwrap();
    assert!(!mount.lets_in(user.unwrap(), password.unwrap()));

    let user = mount.user();
    let role = json!({ "db_name": "pg", "username": user, "rotation_period": "1h" });
    mount.write("static-roles/app", role).await.unwrap();
    let first = mount.read("static-creds/app").await;
    mount.write("rotate-role/app", Value::Null).await.unwrap();
    let second = mount.read("static-creds/app").await;
    assert!(follows(&policy, text(&first, "password")));
    assert!(follows(&policy, text(&second, "password")));
    assert!(mount.lets_in(&user, text(&second, "password")));
    assert!(!mount.lets_in(&user, text(&first, "password")));

    mount.write("rotate-root/pg", Value::Null).await.unwrap();
    let stored = mount.stored("config/pg").await;
    assert!(follows(&policy, text(&stored, "password")));
    assert!(mount.lets_in(&root, text(&stored, "password")));
    assert!(issues(&mount).await, "the broker cannot log in with its own new password");

    // A changed policy counts for the next password, without the database being written again.
    let digits = "length = 30\nrule \"charset\" { charset = \"0123456789\" }";
    store(&mount, "hostile", digits).await;
    mount.write("rotate-role/app", Value::Null).await.unwrap();
    let third = mount.read("static-creds/app").await;
    assert!(follows(digits, text(&third, "password")));

    mount.write("config/pg", json!({ "password_policy": "" })).await.unwrap();
    mount.write("rotate-role/app", Value::Null).await.unwrap();
    let own = mount.read("static-creds/app").await;
    assert_eq!(text(&own, "password").len(), 24);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_policy_a_database_gets_no_password_at_all() {
    let (mount, root) = with_own_root().await;
    let unknown = json!({ "password_policy": "gone" });
    let error = mount.write("config/pg", unknown.clone()).await.unwrap_err().to_string();
    assert!(error.starts_with("field \"password_policy\" does not name"), "{error}");
    let odd = json!({ "password_policy": "../x" });
    let error = mount.write("config/pg", odd).await.unwrap_err().to_string();
    assert!(error.starts_with("field \"password_policy\""), "{error}");

    store(&mount, "gone", &hostile()).await;
    mount.write("config/pg", unknown).await.unwrap();
    let user = mount.user();
    let role = json!({ "db_name": "pg", "username": user, "rotation_period": "1h" });
    mount.write("static-roles/app", role.clone()).await.unwrap();
    let before = mount.read("static-creds/app").await;
    let planned = mount.plan("c", "r").await.unwrap();
    policies(&mount).remove("gone").await.unwrap();

    let refusals = [
        mount.plan("c", "r").await.map(|_| ()).unwrap_err(),
        mount.issue(&planned).await.map(|_| ()).unwrap_err(),
        mount.write("rotate-role/app", Value::Null).await.map(|_| ()).unwrap_err(),
        mount.write("rotate-root/pg", Value::Null).await.map(|_| ()).unwrap_err(),
        {
            let trial = json!({ "db_name": "pg", "creation_statements": CREATE, "verify": true });
            mount.write("roles/tried", trial).await.map(|_| ()).unwrap_err()
        },
        {
            let other = json!({ "username": mount.user(), "rotation_period": "1h" });
            let mut other_role = role.clone();
            other_role.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
            mount.write("static-roles/other", other_role).await.map(|_| ()).unwrap_err()
        },
    ];
    for error in refusals {
        assert_eq!(error.status(), 400, "{error}");
        assert!(error.to_string().contains("no password policy \"gone\""), "{error}");
    }
    // What was in force stays in force, and the scheduler does not spin on what cannot be done.
    let after = mount.read("static-creds/app").await;
    assert_eq!(after["password"], before["password"]);
    assert!(mount.lets_in(&user, text(&after, "password")) && mount.lets_in(&root, "before"));
    let stored = mount.stored("static-roles/app").await;
    assert_eq!((&stored["failures"], &stored["pending_password"]), (&json!(1), &Value::Null));
    assert_ne!(stored["retry_at"], Value::Null);
}
