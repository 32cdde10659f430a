//! A device calibrated where it stands: the promise that a shift of its pictures broke holds again, what is foreign among them loosens
//! nothing, and a site file serves one model only.

use paradise_data::{Dataset, embedded, foreign};
use paradise_runtime::site::{Observations, Options, Report, Site, SiteError};
use paradise_runtime::{Backend, BackendKind, Bundle, Rule, load};
use paradise_tests::daemon::Daemon;
use paradise_tests::{program, root, shipped, text};
use std::path::Path;

/// Pictures of a site: a quarter brighter, and blurred, as a lens that is slightly out of focus does.
fn shifted(set: &Dataset) -> Dataset {
    let (h, w) = (usize::from(set.shape.h), usize::from(set.shape.w));
    let pixel = |image: &[u8], y: isize, x: isize| {
        let inside = (0..h as isize).contains(&y) && (0..w as isize).contains(&x);
        if inside { u32::from(image[y as usize * w + x as usize]) } else { 0 }
    };
    let mut images = Vec::with_capacity(set.images.len());
    for i in 0..set.len() {
        let image = set.image(i);
        for y in 0..h as isize {
            for x in 0..w as isize {
                let around = [(-1, 0), (1, 0), (0, -1), (0, 1)].map(|(dy, dx)| pixel(image, y + dy, x + dx));
                let blurred = (4 * pixel(image, y, x) + around.iter().sum::<u32>()) / 8;
                images.push((blurred * 5 / 4).min(255) as u8);
            }
        }
    }
    Dataset::new(set.shape, images, set.labels.clone()).unwrap()
}

fn backend(kind: BackendKind) -> Box<dyn Backend> {
    load(&Bundle::open(&shipped()).unwrap(), kind).unwrap()
}

/// What `calibrate` makes of a set's images.
fn calibrated(backend: &mut dyn Backend, sets: &[&Dataset], options: &Options) -> Result<(Site, Report), SiteError> {
    let mut seen = Observations::new(backend);
    for (s, set) in sets.iter().enumerate() {
        for i in 0..set.len() {
            let label = (s == 0).then_some(usize::from(set.labels[i]));
            seen.add(backend, &format!("{s}/{i}"), set.image(i), label).unwrap();
        }
    }
    seen.calibrate(backend, options)
}

/// Share abstained from, in per cent.
fn abstained(backend: &mut dyn Backend, set: &Dataset, rule: Option<&Rule>) -> f64 {
    let out = (0..set.len()).filter(|i| !backend.verdict(set.image(*i), rule).unwrap().is_accept()).count();
    100.0 * out as f64 / set.len() as f64
}

fn halves() -> (Dataset, Dataset) {
    let test = embedded::subset().unwrap().test;
    let part = |range: std::ops::Range<usize>| test.select(&range.collect::<Vec<_>>());
    (part(0..600), part(600..test.len()))
}

#[test]
fn the_promise_that_a_shift_breaks_holds_again() {
    let (here, further) = halves();
    let (here, further) = (shifted(&here), shifted(&further));
    for kind in [BackendKind::Int8, BackendKind::Tract] {
        let mut backend = backend(kind);
        let before = abstained(backend.as_mut(), &further, None);
        let (site, report) = calibrated(backend.as_mut(), &[&here], &Options::default()).unwrap();
        println!("{kind}: before {before:.1} %\n{report}");
        let [low, high] = site.expected_percent();
        assert!(before > high + 3.0, "{before} % is no broken promise");
        let rule = Rule::from(site);
        let after = abstained(backend.as_mut(), &further, Some(&rule));
        println!("after {after:.1} %");
        // The interval is of the share itself; 1,400 pictures tell it within two standard errors.
        let by_chance = 200.0 * (0.05 * 0.95 / further.len() as f64).sqrt();
        assert!((low - by_chance..=high + by_chance).contains(&after), "{after} % of {low} to {high}");
        assert!(report.after.right_of_accepted.unwrap().share() > 0.7);
        for (name, noise) in foreign::made(&further.head(200), 9).unwrap() {
            let kept = abstained(backend.as_mut(), &noise, Some(&rule));
            println!("{name}: {kept}");
            assert!(kept >= 98.0, "{name}: {kept} %");
        }
    }
}

#[test]
fn foreign_pictures_among_the_local_ones_are_left_out() {
    let (here, further) = halves();
    let mut backend = backend(BackendKind::Int8);
    let (clean, _) = calibrated(backend.as_mut(), &[&here], &Options::default()).unwrap();
    let clean = Rule::from(clean);
    let accepted = abstained(backend.as_mut(), &further, Some(&clean));
    for (name, noise) in foreign::made(&further.head(90), 5).unwrap() {
        let (site, report) = calibrated(backend.as_mut(), &[&here, &noise], &Options::default()).unwrap();
        println!("{name}: {}, {}", report.set_aside.len(), report.after.abstained);
        let strays = report.set_aside.iter().filter(|picture| picture.starts_with("1/")).count();
        assert!(strays >= 80 && report.set_aside.len() <= strays + 2, "{name}: {:?}", report.set_aside);
        assert!(report.warnings.iter().any(|warning| warning.contains("look at them")), "{name}");
        let rule = Rule::from(site);
        // A quarter of the promise is kept for strays that may be the site's own.
        let now = abstained(backend.as_mut(), &further, Some(&rule));
        assert!((accepted - 2.0..=accepted + 0.5).contains(&now), "{name}: {now} % and {accepted} % without");
        assert!(abstained(backend.as_mut(), &noise, Some(&rule)) >= 99.0, "{name}");
    }
}

#[test]
fn sites_that_would_promise_too_much_are_refused() {
    let (here, further) = halves();
    let mut backend = backend(BackendKind::Int8);
    let refused = |backend: &mut dyn Backend, sets: &[&Dataset], options: Options| {
        calibrated(backend, sets, &options).expect_err("refused").to_string()
    };
    let few = here.head(150);
    assert!(refused(backend.as_mut(), &[&few], Options::default()).contains("150 different pictures are too few"));
    let strict = Options { promise: 0.01, ..Options::default() };
    assert!(refused(backend.as_mut(), &[&here], strict).contains("at least 1000"));
    for promise in [0.0, -1.0, 0.6, f64::NAN] {
        let wrong = Options { promise, ..Options::default() };
        assert!(refused(backend.as_mut(), &[&here], wrong).contains("a promise of"));
    }
    // Another camera's world: nothing but noise, and more noise than pictures.
    let noise = foreign::made(&further.head(700), 5).unwrap().swap_remove(0).1;
    assert!(refused(backend.as_mut(), &[&noise], Options::default()).contains("not what it was made for"));
    let half = Options { max_abstained: 0.5, ..Options::default() };
    assert!(refused(backend.as_mut(), &[&here, &noise], half).contains("more than 50 %"));
    let anything = Options { max_abstained: 1.0, ..Options::default() };
    assert!(refused(backend.as_mut(), &[&noise], anything).contains("would be abstained from"));
}

/// Pictures as files, in folders named like their classes.
fn written(set: &Dataset, labels: &[&str], folder: &Path) {
    for i in 0..set.len() {
        let class = folder.join(labels[usize::from(set.labels[i])]);
        std::fs::create_dir_all(&class).unwrap();
        let head = format!("P5 {} {} 255\n", set.shape.w, set.shape.h);
        std::fs::write(class.join(format!("{i:04}.pgm")), [head.as_bytes(), set.image(i)].concat()).unwrap();
    }
}

const LABELS: [&str; 10] =
    ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"];

/// Exit code, standard output and standard error of `paradised`.
fn paradised(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = program("paradised").args(arguments).output().expect("paradised runs");
    let (out, err) = text(&output);
    (output.status.code(), out, err)
}

#[test]
fn every_command_takes_a_site_and_only_of_its_own_model() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("pictures");
    let here = shifted(&halves().0);
    written(&here, &LABELS, &images);
    std::fs::write(images.join("notes.txt"), "not a picture").unwrap();
    let first = images.join("bag").read_dir().unwrap().next().unwrap().unwrap().path();
    std::fs::copy(&first, images.join("again.pgm")).unwrap();
    let site = folder.path().join("site.toml");
    let [model, images, site] = [shipped(), images, site].map(|path| path.to_str().unwrap().to_string());
    let (code, out, err) =
        paradised(&["calibrate", "--model", &model, "--images", &images, "--out", &site, "--json"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("notes.txt") && err.contains("left out"), "{err}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let aside = report["set_aside"].as_array().unwrap().len() as u64;
    assert!(report["repeated"] == 1 && report["pictures"].as_u64() == Some(600 - aside) && aside < 12, "{report}");
    let here = format!("{} pictures of this site", 600 - aside);
    assert!(report["after"]["right_of_accepted"]["of"].as_u64() > Some(500), "{report}");

    let picture = first.to_str().unwrap();
    let answer = |extra: &[&str]| -> serde_json::Value {
        let (code, out, err) = paradised(&[&["classify", "--model", &model, "--json", picture], extra].concat());
        assert_eq!(code, Some(0), "{err}");
        serde_json::from_str(&out).unwrap()
    };
    let (maker, local) = (answer(&[]), answer(&["--site", &site]));
    assert_eq!(maker["rate_nats"], local["rate_nats"]);
    assert_ne!(maker["picture_p"], local["picture_p"]);
    assert_eq!(answer(&["--site", &site, "--min-combined-p", "1"])["decision"], "abstain");

    let (_, out, _) = paradised(&["inspect", "--model", &model, "--site", &site]);
    assert!(out.contains(&here), "{out}");
    let (_, out, _) = paradised(&["inspect", "--model", &model, "--json"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap()["thresholds_from"], "maker");
    let (code, out, _) = paradised(&["selftest", "--model", &model, "--site", &site]);
    assert!(code == Some(0) && out.contains(&here), "{out}");
    let (code, out, _) = paradised(&["bench", "--model", &model, "--site", &site, "--runs", "5"]);
    assert_eq!(code, Some(0), "{out}");

    let other = root().join("models/fashion-mnist-resnet8-pm");
    let other = other.to_str().unwrap();
    for command in [&["inspect"][..], &["bench", "--runs", "5"], &["classify", picture]] {
        let (code, _, err) = paradised(&[command, &["--model", other, "--site", &site]].concat());
        assert!(code == Some(2) && err.contains("made with another model (fashion-mnist-small"), "{err}");
    }
    let (code, out, _) = paradised(&["selftest", "--model", other, "--site", &site]);
    assert!(code == Some(1) && out.contains("made with another model"), "{out}");
    let (code, _, err) = paradised(&["serve", "--listen", "127.0.0.1:0", "--model", other, "--site", &site]);
    assert!(code == Some(1) && err.contains("made with another model"), "{err}");

    let good = std::fs::read_to_string(&site).unwrap();
    let broken = folder.path().join("broken.toml");
    for (from, to, why) in [
        ("format = 1", "format = 2", "site format 2, this version reads 1"),
        ("picture_p_min = 0", "picture_p_min = 7", "out of range"),
        ("\nn = ", "\nn = 9", "ranks do not span"),
        ("promised_percent", "promise", "unknown field"),
        ("[looks]", "[look", "not a site file"),
        ("values = [", "values = [nan, ", "257 exceeds the limit of 256"),
    ] {
        assert!(good.contains(from));
        std::fs::write(&broken, good.replacen(from, to, 1)).unwrap();
        let (code, _, err) = paradised(&["inspect", "--model", &model, "--site", broken.to_str().unwrap()]);
        assert!(code == Some(2) && err.contains(why) && err.contains("broken.toml"), "{from}: {err}");
    }
    std::fs::write(&broken, vec![b' '; 2 << 20]).unwrap();
    let (code, _, err) = paradised(&["inspect", "--model", &model, "--site", broken.to_str().unwrap()]);
    assert!(code == Some(2) && err.contains("larger than a site file may be"), "{err}");
}

#[test]
fn pictures_are_listed_on_standard_input_too_and_an_old_site_file_stays_until_there_is_a_new_one() {
    use std::io::Write;
    let folder = tempfile::tempdir().unwrap();
    written(&halves().0.head(220), &LABELS, folder.path());
    let site = folder.path().join("site.toml");
    std::fs::write(&site, "old").unwrap();
    let run = |list: &str| {
        let mut child = program("paradised")
            .args(["calibrate", "--images", "-", "--model"])
            .arg(shipped())
            .arg("--out")
            .arg(&site)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(list.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), text(&output))
    };
    let (code, (_, err)) = run("no such picture\n");
    assert!(code == Some(2) && err.contains("no such picture: ") && err.contains("0 different pictures"), "{err}");
    assert_eq!(std::fs::read_to_string(&site).unwrap(), "old");
    let mut list = String::new();
    for class in LABELS {
        for picture in folder.path().join(class).read_dir().unwrap() {
            list += &format!("{}\n", picture.unwrap().path().display());
        }
    }
    let (code, (out, err)) = run(&list);
    assert!(code == Some(0) && out.contains("fashion-mnist-small: calibrated on 2"), "{out} {err}");
    assert!(std::fs::read_to_string(&site).unwrap().contains("\npictures = 2"));
}

#[test]
fn a_model_that_fails_its_self_test_while_it_serves_is_taken_out_of_service() {
    let (local, _) = halves();
    let mut backend = backend(BackendKind::Int8);
    let (site, _) = calibrated(backend.as_mut(), &[&shifted(&local)], &Options::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("site.toml");
    site.write(&file).unwrap();
    let daemon = Daemon::start(&[&shipped()], &["--site", &file.to_string_lossy()]);
    let (status, report) = daemon.request("POST", "/v1/selftest", b"");
    assert_eq!((status, &report["verdict"]), (200, &"passed".into()), "{report}");
    // The thresholds' own check reads the file again.
    std::fs::write(&file, b"nothing of the kind").unwrap();
    let (status, report) = daemon.request("POST", "/v1/selftest", b"");
    assert_eq!((status, &report["verdict"], &report["exit_code"]), (200, &"failed".into(), &1.into()), "{report}");
    assert_eq!(daemon.request("GET", "/v2/health/ready", b"").0, 503);
    let (status, why) = daemon.request("POST", "/v1/classify", b"P5 1 1 255\n\x07");
    assert!(
        status == 503
            && why["error"]
                .as_str()
                .is_some_and(|why| why.contains("its self-test failed while it served: thresholds")),
        "{why}"
    );
    // The report is still there, and the model comes back when all is well again and somebody has said so.
    let (status, last) = daemon.request("GET", "/v1/selftest?model=fashion-mnist-small", b"");
    assert_eq!((status, &last["verdict"]), (200, &"failed".into()));
    site.write(&file).unwrap();
    assert_eq!(daemon.request("POST", "/v2/repository/models/fashion-mnist-small/load", b"").0, 503);
    assert_eq!(daemon.request("DELETE", "/v1/faults?model=fashion-mnist-small", b"").1["serves"], true);
    assert_eq!(daemon.request("GET", "/v2/health/ready", b"").0, 200);
    assert_eq!(daemon.stop(), Some(0));
}
