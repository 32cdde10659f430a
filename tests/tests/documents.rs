//! README and docs are true: their shell lines run, the flags that they name exist, their links lead somewhere, their size
//! is what was promised.

use paradise_tests::{program, root, text};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// README.md, CONTRIBUTING.md and the pages of docs/.
fn pages() -> Vec<PathBuf> {
    let mut all = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    let docs = fs::read_dir(root().join("docs")).expect("docs/").map(|e| e.expect("an entry").path());
    all.extend(docs.filter(|p| p.extension().is_some_and(|e| e == "md")));
    all.sort();
    all
}

/// The fenced blocks of a page: what stands after the fence, and the lines.
fn blocks(page: &Path) -> Vec<(String, String)> {
    let page = fs::read_to_string(page).expect("a page");
    let (mut blocks, mut open): (Vec<(String, String)>, bool) = (Vec::new(), false);
    for line in page.lines() {
        match line.strip_prefix("```") {
            Some(_) if open => open = false,
            Some(kind) => {
                open = true;
                blocks.push((kind.trim().into(), String::new()));
            }
            None if open => {
                let (_, block) = blocks.last_mut().expect("a block is open");
                block.push_str(line);
                block.push('\n');
            }
            None => {}
        }
    }
    assert!(!open, "a block is not closed");
    blocks
}

/// A folder that looks like the repository to a reader's commands, with the programs on the path.
fn reader() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["models", "train", "tests"] {
        std::os::unix::fs::symlink(root().join(name), folder.path().join(name)).expect("a link");
    }
    let programs = Path::new(program("train").get_program()).parent().expect("a folder").display().to_string();
    let path = format!("{programs}:{}", std::env::var("PATH").expect("a path"));
    (folder, path)
}

#[test]
fn shell_lines_run() {
    let mut run = 0;
    for page in pages() {
        // A page's blocks follow each other, as a reader would type them.
        let lines: String = blocks(&page).into_iter().filter(|(kind, _)| kind == "sh").map(|(_, b)| b).collect();
        if lines.is_empty() {
            continue;
        }
        let (folder, path) = reader();
        let script = format!("set -e\n{lines}");
        let output =
            Command::new("bash").arg("-c").arg(script).env("PATH", path).current_dir(folder.path()).output().unwrap();
        let (out, error) = text(&output);
        assert!(output.status.success(), "{}: {out}{error}", page.display());
        run += 1;
    }
    assert!(run >= 4, "{run} pages have lines that run");
}

/// The flags that `--help` of a command lists, a command of a command by both its names.
fn flags(name: &str, command: &[&str], known: &mut BTreeMap<String, String>) -> String {
    let key = format!("{name} {}", command.join(" "));
    let help = || {
        let output = program(name).args(command).arg("--help").output().expect("the program starts");
        assert!(output.status.success(), "{key} is no command");
        text(&output).0
    };
    known.entry(key.clone()).or_insert_with(help).clone()
}

#[test]
fn every_flag_that_a_command_is_shown_with_exists() {
    let mut known = BTreeMap::new();
    let mut seen = 0;
    for page in pages() {
        for (kind, block) in blocks(&page).into_iter().filter(|(kind, _)| kind.starts_with("sh")) {
            for line in block.replace("\\\n", " ").lines() {
                // Whatever stands before the program: cargo's own words, a folder.
                let words: Vec<&str> = line.split('#').next().unwrap_or("").split_whitespace().collect();
                let at =
                    words.iter().position(|w| ["train", "paradised"].contains(w) || w.ends_with("release/train"));
                let Some(at) = at else { continue };
                let name = if words[at].ends_with("train") { "train" } else { "paradised" };
                let rest = words[at + 1..].iter().skip_while(|w| **w == "--").collect::<Vec<_>>();
                let Some(command) = rest.first().filter(|c| c.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
                else {
                    continue;
                };
                let mut help = flags(name, &[command], &mut known);
                let within = |word: &&&&str| {
                    help.split_once("Commands:").is_some_and(|(_, list)| list.contains(&format!("\n  {word} ")))
                };
                if let Some(inner) = rest[1..].iter().find(within) {
                    help += &flags(name, &[command, inner], &mut known);
                }
                for flag in rest.iter().filter(|w| w.starts_with("--") && w.len() > 2) {
                    let flag = flag.split('=').next().unwrap_or(flag);
                    assert!(help.contains(flag), "{} ({kind}): {name} {command} has no {flag}", page.display());
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 20, "{seen} flags");
}

#[test]
fn links_lead_somewhere() {
    let all: Vec<PathBuf> = pages().into_iter().chain([root().join("ARCHITECTURE.md")]).collect();
    let mut links = 0;
    for page in &all {
        let written = fs::read_to_string(page).expect("a page");
        for part in written.split("](").skip(1) {
            let target = part.split(')').next().unwrap_or("");
            if target.starts_with("http") {
                continue;
            }
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let at = if path.is_empty() { page.clone() } else { page.parent().expect("a folder").join(path) };
            assert!(at.exists(), "{}: {target} leads nowhere", page.display());
            if !heading.is_empty() {
                let there = fs::read_to_string(&at).expect("a page");
                let slug = |line: &str| {
                    let words = line.trim_start_matches('#').trim().to_lowercase();
                    let kept = words.chars().filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-');
                    kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>()
                };
                let found = there.lines().any(|l| l.starts_with('#') && slug(l) == heading);
                assert!(found, "{}: {target} has no such heading", page.display());
            }
            links += 1;
        }
    }
    assert!(links > 20, "{links} links");
}

#[test]
fn the_readme_is_a_porch_and_its_program_is_an_example() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    assert!(readme.len() <= 8 * 1024, "README.md has {} bytes", readme.len());
    // The program of the README is compiled with this test.
    let (_, program) =
        blocks(&root().join("README.md")).into_iter().find(|(kind, _)| kind == "rust").expect("a program");
    let same: fn() -> Result<(), Box<dyn std::error::Error>> = readme::classify;
    let here = fs::read_to_string(root().join("tests/tests/documents.rs")).expect("this file");
    let of = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    let body = of(program.split_once("{\n").expect("a body").1.trim_end().trim_end_matches('}'));
    assert!(of(&here).contains(&body), "README's program is not the one below");
    assert!(same().is_err(), "trouser.png does not lie here");
}

/// README's program, word for word, so that it compiles.
mod readme {
    use paradise_runtime::{BackendKind, Bundle, load};
    use std::path::Path;

    pub fn classify() -> Result<(), Box<dyn std::error::Error>> {
        // Every file is compared with the manifest before it is used.
        let bundle = Bundle::open(Path::new("models/fashion-mnist-small"))?;
        let mut model = load(&bundle, BackendKind::Int8)?;
        let picture = paradise_picture::read(Path::new("trouser.png"))?;
        let verdict = model.picture(&picture, None)?;
        match verdict.is_accept() {
            true => println!("{} ({:.0} %)", verdict.label, 100.0 * verdict.score),
            false => println!("not sure: {}", verdict.decision),
        }
        Ok(())
    }
}

#[test]
fn the_stated_minimum_rust_version_is_the_one_that_is_checked() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    let table: toml::Table = manifest.parse().expect("TOML");
    let stated = table["workspace"]["package"]["rust-version"].as_str().expect("a version").to_string();
    for page in ["README.md", "CONTRIBUTING.md"] {
        let text = fs::read_to_string(root().join(page)).expect("a page");
        assert!(text.contains(&stated), "{page} does not name Rust {stated}");
    }
}
