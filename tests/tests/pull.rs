//! `paradised pull` against Debian's docker-registry: what was asked for by its digest takes its place, nothing else does.

use paradise_tests::{root, shipped, skipped, text, until};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const NAME: &str = "fashion-mnist-small";

/// A registry with an empty store.
struct Registry {
    child: Child,
    host: String,
    folder: tempfile::TempDir,
}

impl Registry {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let host = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let config = folder.path().join("config.yml");
        let store = folder.path().join("store");
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n",
                store.display()
            ),
        )
        .unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self { child, host, folder };
        until("the registry starts", || registry.curl(&["-f"], "/v2/").0);
        registry
    }

    fn curl(&self, arguments: &[&str], path: &str) -> (bool, String) {
        let url = if path.starts_with("http") { path.to_string() } else { format!("http://{}{path}", self.host) };
        let output = Command::new("curl").args(["-s", "-i", "-m", "20"]).args(arguments).arg(url).output().unwrap();
        (output.status.success(), text(&output).0)
    }

    /// Pushes a file; its digest and size.
    fn blob(&self, path: &Path) -> (String, u64) {
        let sum = Command::new("sha256sum").arg(path).output().unwrap();
        let digest = format!("sha256:{}", text(&sum).0.split_whitespace().next().unwrap());
        let (_, begun) = self.curl(&["-X", "POST"], &format!("/v2/{NAME}/blobs/uploads/"));
        let location =
            begun.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap_or_else(|| panic!("{begun}"));
        let separator = if location.contains('?') { '&' } else { '?' };
        let data = format!("@{}", path.display());
        let to = format!("{}{separator}digest={digest}", location.trim());
        let kind = "Content-Type: application/octet-stream";
        let (_, put) = self.curl(&["-X", "PUT", "-H", kind, "--data-binary", &data], &to);
        assert!(put.contains(" 201 "), "{put}");
        (digest, fs::metadata(path).unwrap().len())
    }

    /// Pushes files under their titles; the digest of the artifact.
    fn push(&self, files: &[(String, PathBuf)]) -> String {
        let empty = self.folder.path().join("empty");
        fs::write(&empty, "{}").unwrap();
        let (config, size) = self.blob(&empty);
        let layers: Vec<serde_json::Value> = files
            .iter()
            .map(|(title, path)| {
                let (digest, size) = self.blob(path);
                serde_json::json!({
                    "mediaType": "application/octet-stream", "digest": digest, "size": size,
                    "annotations": { "org.opencontainers.image.title": title },
                })
            })
            .collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": size },
            "layers": layers,
        });
        let path = self.folder.path().join("manifest");
        fs::write(&path, manifest.to_string()).unwrap();
        let data = format!("@{}", path.display());
        let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json";
        let put =
            self.curl(&["-X", "PUT", "-H", kind, "--data-binary", &data], &format!("/v2/{NAME}/manifests/latest")).1;
        let digest = put.lines().find_map(|line| line.strip_prefix("Docker-Content-Digest: "));
        digest.unwrap_or_else(|| panic!("{put}")).trim().to_string()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn files(folder: &Path) -> Vec<(String, PathBuf)> {
    let mut all: Vec<(String, PathBuf)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        .collect();
    all.sort();
    all
}

#[test]
fn what_is_named_by_its_digest_takes_its_place() {
    let test = "what_is_named_by_its_digest_takes_its_place";
    if skipped("oci", test) || skipped("minisign", test) {
        return;
    }
    let program = root().join("target/oci/release/paradised");
    let (registry, folder) = (Registry::start(), tempfile::tempdir().unwrap());
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (models, bundle, public, secret) = (at("models"), folder.path().join("bundle"), at("a.pub"), at("a.key"));
    let sign =
        |arguments: &[&str]| assert!(Command::new("minisign").args(arguments).output().unwrap().status.success());
    sign(&["-G", "-W", "-p", &public, "-s", &secret]);
    fs::create_dir(&models).unwrap();
    fs::create_dir(&bundle).unwrap();
    for (name, path) in files(&shipped()) {
        fs::copy(path, bundle.join(name)).unwrap();
    }
    let pull = |address: &str, extra: &[&str]| {
        let output =
            Command::new(&program).args(["pull", address, "--models", &models, "--plain-http"]).args(extra).output();
        let output = output.unwrap();
        (output.status.code(), text(&output).1)
    };
    let refused = |address: &str, extra: &[&str], why: &str| {
        let (code, errors) = pull(address, extra);
        assert!(code == Some(2) && errors.contains(why), "{address}: {errors}");
        assert!(!errors.contains("panicked"), "{errors}");
        let left: Vec<_> = files(Path::new(&models))
            .into_iter()
            .filter(|(name, _)| ![NAME, ".paradised"].contains(&name.as_str()))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    };
    let address = |digest: &str| format!("oci://{}/{NAME}@{digest}", registry.host);

    // Nobody signed it.
    let unsigned = address(&registry.push(&files(&bundle)));
    refused(&unsigned, &["--key", &public], "signed");
    refused(&unsigned, &[], "--key");
    assert_eq!(
        pull(&unsigned, &["--unsigned", "--version", "0.1"]),
        (Some(0), pull(&unsigned, &["--unsigned", "--version", "0.1"]).1)
    );
    let comment = format!("model={NAME} version=2.5 expires=2999-01-01");
    sign(&["-S", "-s", &secret, "-t", &comment, "-m", &bundle.join("manifest.json").to_string_lossy()]);
    let digest = registry.push(&files(&bundle));
    let signed = address(&digest);
    assert_eq!(pull(&signed, &["--key", &public]).0, Some(0));
    let placed = Path::new(&models).join(NAME).join("2.5");
    for (name, path) in files(&bundle) {
        assert!(fs::read(placed.join(&name)).unwrap() == fs::read(path).unwrap(), "{name}");
    }
    // Again changes nothing; another in its place is refused.
    assert_eq!(pull(&signed, &["--key", &public]).0, Some(0));
    refused(&unsigned, &["--unsigned", "--version", "2.5"], "is there, and is another bundle");
    // What serves is what was pulled.
    let keys = ["--models", &models, "--key", &public];
    let checked = Command::new(&program).arg("check-config").args(keys).output().unwrap();
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked).1);

    // By a tag, by another digest, from nowhere.
    refused(&format!("oci://{}/{NAME}:latest", registry.host), &["--key", &public], "name it by its digest");
    refused(&format!("{}/{NAME}@{digest}", registry.host), &["--key", &public], "oci://HOST");
    refused(&address(&format!("sha256:{}", "0".repeat(64))), &["--key", &public], "sha256:0000");
    refused(&format!("oci://127.0.0.1:1/{NAME}@{digest}"), &["--key", &public], "127.0.0.1:1");
    // A file that would lie elsewhere, and one that lacks.
    let mut outside = files(&bundle);
    outside[0].0 = "../card.toml".into();
    refused(&address(&registry.push(&outside)), &["--key", &public], "is not a plain file name");
    refused(&address(&registry.push(&files(&bundle)[1..])), &["--key", &public], "card.toml");
}
