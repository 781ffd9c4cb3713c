//! Keys of one's own, brought into transit from the command line.

use std::io::Write;
use std::process::Stdio;

use data_encoding::BASE64;

use super::dev::fresh;
use super::text;

#[test]
fn a_key_of_ones_own_is_wrapped_here_and_is_the_same_there() {
    let (temp, dev) = fresh();
    dev.ok("admin", &["secrets", "enable", "-path=own", "transit"]);
    let keys = [BASE64.encode(&[7; 32]), BASE64.encode(&[9; 32])];
    let file = temp.path().join("key");
    std::fs::write(&file, format!("{}\n", keys[0])).unwrap();
    let from = format!("@{}", file.display());
    let import = ["transit", "import", "own/keys/mine", &from, "exportable=true"];
    let shown = dev.ok("admin", &[&import[..], &["-output-curl-string"]].concat());
    assert!(shown.contains("own/keys/mine/import") && !shown.contains(&keys[0]), "{shown}");
    dev.ok("admin", &import);
    let mut child = dev
        .as_("admin", &["transit", "import-version", "own/keys/mine", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(keys[1].as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    let kept = dev.json("admin", &["read", "own/export/encryption-key/mine"])["data"].clone();
    assert_eq!(kept["keys"], serde_json::json!({ "1": keys[0], "2": keys[1] }));

    for (args, names) in [
        (["own/keys/other", "not base64"], "base64"),
        (["own/mine", "BwcHBw=="], "not the path of a key"),
        (["secret/keys/x", "BwcHBw=="], ""),
    ] {
        let output = dev.run("admin", &[&["transit", "import"][..], &args].concat());
        assert!(matches!(output.status.code(), Some(1 | 2)), "{args:?}");
        assert!(text(&output.stderr).contains(names), "{}", text(&output.stderr));
    }
    let short = dev.refused("admin", &["transit", "import", "own/keys/short", "BwcHBw=="]);
    assert!(short.contains("ciphertext"), "{short}");
}
