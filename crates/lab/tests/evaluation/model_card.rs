//! What stands on evaluations: the model card.

use earthmapper_lab::evaluate::card::{CardFacts, NEW_YORK_DATA, TrainingFacts, model_card};

use super::{model, pairs, quick, run};

#[test]
fn the_card_says_what_must_be_said() {
    let temporary = tempfile::tempdir().unwrap();
    let pairs = pairs(temporary.path(), 2);
    let mut model = model(&pairs);
    model.config.trained_on.region = "New York".into();
    let evaluated = run(&model, &pairs, &quick(&model));
    let mut facts = CardFacts {
        data: NEW_YORK_DATA.into(),
        trainings: vec![TrainingFacts {
            what: "transformer".into(),
            training_pairs: "1..1000".into(),
            validation_pairs: "1001..1096".into(),
            step: 1600,
            steps: 1700,
            hours: 1.25,
            hardware: vec!["device cpu on a processor, 2 threads".into()],
            version: "0.1.0".into(),
            notes: vec!["semantic infusion off".into()],
        }],
    };
    let card = model_card(&model, &evaluated.evaluation, &facts);
    let must = [
        "# tiny\n",
        "research only",
        "not redistributed",
        "2.1 m per pixel",
        "1.25 hours in all",
        "step 1600",
        "blank map",
        "road F1",
        "--pairs 1..2",
        "synthetic",
    ];
    for text in must {
        assert!(card.contains(text), "{text}: {card}");
    }
    // Pairs 1 and 2 were trained on; it must not say otherwise, nor when it cannot know.
    assert!(card.contains("some of which were trained on"), "{card}");
    facts.trainings[0].training_pairs = "3..1000".into();
    assert!(model_card(&model, &evaluated.evaluation, &facts).contains("(1 to 2) that were not trained on"));
    facts.trainings.clear();
    assert!(model_card(&model, &evaluated.evaluation, &facts).contains("is not known"));
}
