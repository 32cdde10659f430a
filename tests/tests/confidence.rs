//! The committed bundle knows when not to trust itself: it abstains from what it was never shown, rarely from what it was, and
//! both back ends decide alike.

use paradise_data::{Dataset, embedded, foreign};
use paradise_engine::{Model, Reason};
use paradise_evaluate::prediction::int8;
use paradise_runtime::{BackendKind, Bundle, load};
use paradise_tests::shipped;

#[test]
fn made_up_pictures_are_abstained_from_and_test_images_as_rarely_as_promised() {
    let bundle = Bundle::open(&shipped()).unwrap();
    let model = Model::parse(bundle.file("model.pmq").unwrap()).unwrap();
    let test = embedded::subset().unwrap().test;
    let abstained = |set: &Dataset| {
        let all = int8::predict(&model, set).unwrap();
        all.iter().filter(|p| !p.accept).count() as f64 / all.len() as f64
    };
    for (name, set) in foreign::made(&test.head(500), 3).unwrap() {
        // An inverted piece of clothing is no piece of clothing to this network.
        assert!(abstained(&set) >= 0.99, "{name}: {}", abstained(&set));
    }
    // 5 % of 1,000 calibration and 2,000 test images: twice the standard error of both.
    assert!(
        (abstained(&test) - 0.05).abs() <= 2.0 * (0.05 * 0.95 * (1e-3 + 0.5e-3f64)).sqrt(),
        "{}",
        abstained(&test)
    );
}

#[test]
fn both_back_ends_decide_alike_and_say_why() {
    let bundle = Bundle::open(&shipped()).unwrap();
    let mut both = [BackendKind::Int8, BackendKind::Tract].map(|kind| load(&bundle, kind).unwrap());
    let test = embedded::subset().unwrap().test.head(1000);
    let same = (0..test.len()).filter(|i| {
        let [a, b] = both.each_mut().map(|backend| backend.verdict(test.image(*i), None).unwrap());
        a.is_accept() == b.is_accept()
    });
    let same = same.count();
    // What is left are images near a level.
    assert!(same >= 980, "{same} of 1000");
    let noise = foreign::made(&test.head(20), 1).unwrap().swap_remove(0).1;
    for backend in &mut both {
        for i in 0..noise.len() {
            let verdict = backend.verdict(noise.image(i), None).unwrap();
            assert_eq!(verdict.decision.reason(), Some(Reason::UnfamiliarPicture));
        }
    }
}
