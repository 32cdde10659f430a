//! `paradised pull`: a bundle from an OCI registry, by its digest, into the folder of models. Each layer of the artifact is a file of the
//! bundle, named by its title, as `oras push` makes it. What is pulled is checked as what arrives any other way.

use crate::arguments::{Pull, keys, secret};
use anyhow::{Context, bail, ensure};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::manifest::{OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageManifest};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use paradise_runtime::bundle::MAX_FILE;
use paradise_runtime::store::{Claims, Version};
use paradise_runtime::{Bundle, say};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Most files of a bundle.
const MAX_LAYERS: usize = 32;
/// What names a layer's file.
const TITLE: &str = "org.opencontainers.image.title";
/// How an address begins.
const SCHEME: &str = "oci://";

/// A folder that is removed with its value.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        // It is there no longer once it took its place.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Pulls a bundle and puts it in its place.
///
/// # Errors
/// If the address names no digest, the registry does not give it, or what it gives is no bundle that may serve here.
pub fn run(arguments: &Pull) -> anyhow::Result<u8> {
    let address = &arguments.address;
    let reference: Reference = address
        .strip_prefix(SCHEME)
        .with_context(|| format!("{address}: an address is {SCHEME}HOST/NAME@sha256:DIGEST"))?
        .parse()
        .with_context(|| address.clone())?;
    let digest = reference.digest().with_context(|| {
        format!(
            "{address}: name it by its digest (@sha256:...): what a tag names today may be another thing tomorrow"
        )
    })?;
    let keys = keys(&arguments.key)?;
    ensure!(
        keys.is_some() != (arguments.unsigned && arguments.version.is_some()),
        "by whose --key is it signed? Or --unsigned with --version, for one that nobody signed"
    );
    let root = &arguments.models;
    ensure!(root.is_dir(), "{}: no such folder", root.display());
    let part = Part(root.join(format!(".pull-{}", std::process::id())));
    fs::create_dir(&part.0).with_context(|| part.0.display().to_string())?;
    let auth = auth(arguments)?;
    let plain = ClientProtocol::HttpsExcept(vec![reference.resolve_registry().to_string()]);
    let protocol = if arguments.plain_http { plain } else { ClientProtocol::Https };
    let client = Client::new(ClientConfig { protocol, ..ClientConfig::default() });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(fetch(&client, &reference, digest, &auth, &part.0)).with_context(|| address.clone())?;
    let bundle = Bundle::open(&part.0)?;
    let (model, version) = match (&keys, &arguments.version) {
        (Some(keys), _) => {
            let Claims { model, version, .. } = keys.claims(&bundle)?;
            (model, version)
        }
        (None, Some(version)) => (bundle.name().to_string(), version.parse::<Version>().map_err(anyhow::Error::msg)?),
        (None, None) => bail!("--version: which?"),
    };
    ensure!(model == bundle.name(), "it is signed as {model:?}, and is {:?}", bundle.name());
    place(&part.0, &bundle, &root.join(&model), &version)?;
    say!("{model} {version}: {}", root.join(&model).join(version.to_string()).display());
    Ok(0)
}

/// Puts a folder in its place as a version of a model.
fn place(part: &Path, bundle: &Bundle, model: &Path, version: &Version) -> anyhow::Result<()> {
    fs::create_dir_all(model).with_context(|| model.display().to_string())?;
    let to = model.join(version.to_string());
    if to.exists() {
        let same = Bundle::fingerprint_of(&to).is_some_and(|there| there == bundle.fingerprint());
        ensure!(same, "{}: is there, and is another bundle", to.display());
        return Ok(());
    }
    File::open(part)?.sync_all()?;
    fs::rename(part, &to).with_context(|| to.display().to_string())?;
    Ok(File::open(model)?.sync_all()?)
}

fn auth(arguments: &Pull) -> anyhow::Result<RegistryAuth> {
    match (&arguments.user, &arguments.password_file) {
        (Some(user), Some(path)) => Ok(RegistryAuth::Basic(user.clone(), secret(path)?)),
        (None, None) => Ok(RegistryAuth::Anonymous),
        _ => bail!("--user and --password-file: both or neither"),
    }
}

/// Fetches every file of the artifact.
async fn fetch(
    client: &Client,
    reference: &Reference,
    digest: &str,
    auth: &RegistryAuth,
    to: &Path,
) -> anyhow::Result<()> {
    let (bytes, _) = client.pull_manifest_raw(reference, auth, &[OCI_IMAGE_MEDIA_TYPE]).await?;
    let found = format!("sha256:{:x}", Sha256::digest(&bytes));
    ensure!(found == digest, "the registry gave {found}, which was not asked for");
    let manifest: OciImageManifest = serde_json::from_slice(&bytes).context("it is no artifact")?;
    ensure!(!manifest.layers.is_empty(), "it has no files");
    ensure!(
        manifest.layers.len() <= MAX_LAYERS,
        "{} files, and a bundle has at most {MAX_LAYERS}",
        manifest.layers.len()
    );
    for layer in &manifest.layers {
        let path = to.join(title(layer)?);
        // Bytes past what was announced are an error, before they fill the disk.
        let most = u64::try_from(layer.size).ok().filter(|size| *size <= MAX_FILE);
        let most =
            most.with_context(|| format!("{}: {} bytes, the limit is {MAX_FILE}", path.display(), layer.size))?;
        let file = tokio::fs::File::from_std(File::create_new(&path).with_context(|| path.display().to_string())?);
        let mut file = Bounded { file, left: most };
        eprintln!("{} ({most} bytes)", path.file_name().unwrap_or_default().to_string_lossy());
        client.pull_blob(reference, layer, &mut file).await.with_context(|| path.display().to_string())?;
        file.file.sync_all().await?;
    }
    Ok(())
}

/// The name of a layer's file.
fn title(layer: &OciDescriptor) -> anyhow::Result<&str> {
    let title = layer.annotations.as_ref().and_then(|all| all.get(TITLE));
    let title = title.with_context(|| format!("layer {} has no {TITLE}: push it by `oras push`", layer.digest))?;
    let plain = !title.is_empty() && !title.starts_with('.') && !title.contains(['/', '\\', '\0']);
    ensure!(plain, "{title:?} is not a plain file name");
    Ok(title)
}

/// A file that takes no more than was announced.
struct Bounded {
    file: tokio::fs::File,
    left: u64,
}

impl tokio::io::AsyncWrite for Bounded {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        if bytes.len() as u64 > self.left {
            return std::task::Poll::Ready(Err(std::io::Error::other("it is longer than was announced")));
        }
        let written = std::task::ready!(std::pin::Pin::new(&mut self.file).poll_write(context, bytes))?;
        self.left -= written as u64;
        std::task::Poll::Ready(Ok(written))
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.file).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.file).poll_shutdown(context)
    }
}
