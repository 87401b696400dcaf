//! Images that a program hands over.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::*;

const RAW: Form = Form::Raw {
    size: [2, 1],
    order: Order::Interleaved,
};

fn copied(bytes: &[u8]) -> FedImage<'_> {
    FedImage::Copied(bytes, Form::Encoded)
}

fn labelled(label: u32) -> Annotations<'static> {
    Annotations {
        label: Some(Label::Number(label)),
        ..Annotations::default()
    }
}

fn named(label: &str) -> Annotations<'_> {
    Annotations {
        label: Some(Label::Name(label)),
        ..Annotations::default()
    }
}

#[test]
fn images_come_back_as_they_were_handed_over() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"in a file").unwrap();
    let memory = Lent(Arc::new((0..20).collect::<Vec<u8>>()));
    let long = vec![7; 1 << 20];
    let mut feed = Feed::new(None);
    let add = |feed: &mut Feed, image| feed.add(Split::Train, image, labelled(0)).unwrap();
    add(&mut feed, copied(b"first"));
    add(&mut feed, FedImage::Lent(memory.clone(), 3..9, RAW));
    add(&mut feed, FedImage::File(file));
    add(&mut feed, copied(&long));
    add(&mut feed, FedImage::Copied(b"abcdef", RAW));
    add(&mut feed, FedImage::Lent(memory, 0..20, Form::Encoded));
    let source = feed.finish().unwrap();
    let items = &source.splits[0].1;
    let raw = |values| {
        Image::Raw(RawImage {
            size: [2, 1],
            order: Order::Interleaved,
            values,
        })
    };
    let bytes: Vec<u8> = (0..20).collect();
    let expected = [
        Image::Encoded(b"first"),
        raw(&[3, 4, 5, 6, 7, 8]),
        Image::Encoded(b"in a file"),
        Image::Encoded(&long),
        raw(b"abcdef"),
        Image::Encoded(&bytes),
    ];
    let mut reader = source.reader();
    for order in [[0, 1, 2, 3, 4, 5], [5, 3, 4, 0, 2, 1]] {
        for at in order {
            assert_eq!(reader.read(&items[at]).unwrap(), expected[at], "image {at}");
            assert_eq!(reader.stamp().is_some(), at == 2, "image {at}");
        }
        reader.load(&items.iter().collect::<Vec<_>>());
    }
    assert_eq!(items[4].name, "train/4");
    let sizes = items.iter().map(|item| reader.raw_size(item));
    let raw = Some([2, 1]);
    assert!(sizes.eq([None, raw, None, None, raw, None]));
}

#[test]
fn labels_that_are_names_are_classes_in_the_order_of_their_bytes() {
    let mut feed = Feed::new(None);
    for (split, name) in [
        (Split::Val, "dog"),
        (Split::Train, "ant"),
        (Split::Train, "dog"),
        (Split::Train, "Cow"),
    ] {
        feed.add(split, copied(b"x"), named(name)).unwrap();
    }
    let source = feed.finish().unwrap();
    let ids: Vec<_> = source.classes.iter().map(|class| &*class.id).collect();
    assert_eq!(ids, ["Cow", "ant", "dog"]);
    let labels = |at: usize| -> Vec<_> { source.splits[at].1.iter().map(|it| it.label).collect() };
    assert_eq!(labels(0), [Some(1), Some(2), Some(0)]);
    assert_eq!(labels(1), [Some(2)]);
    assert_eq!(source.splits.len(), 2);
}

#[test]
fn listed_classes_are_found_by_id_and_by_name() {
    let classes = [("n1", "crane"), ("n2", "crane"), ("crane", "bird")];
    let class = |(id, name): (&str, &str)| Class {
        id: id.to_owned(),
        name: name.to_owned(),
    };
    let mut feed = Feed::new(Some(classes.map(class).to_vec()));
    for label in ["n2", "crane", "bird", "n1"] {
        feed.add(Split::Test, copied(b"x"), named(label)).unwrap();
    }
    let source = feed.finish().unwrap();
    let labels: Vec<_> = source.splits[0].1.iter().map(|item| item.label).collect();
    assert_eq!(labels, [Some(1), Some(2), Some(2), Some(0)]);
}

#[test]
fn an_image_that_breaks_a_rule_is_named_and_not_added() {
    let class = Class {
        id: "a".to_owned(),
        name: "a".to_owned(),
    };
    let boxed = |bbox| Annotations {
        bbox: Some(bbox),
        ..labelled(0)
    };
    let mut feed = Feed::new(Some(vec![class]));
    feed.add(Split::Train, copied(b"x"), labelled(0)).unwrap();
    let memory = Lent(Arc::new([0; 9]));
    let same = Annotations {
        name: Some("train/0"),
        ..labelled(0)
    };
    for (image, annotations, reason) in [
        (copied(b"x"), labelled(1), "label 1, expected less than 1"),
        (copied(b"x"), named("b"), "label \"b\", expected one of"),
        (copied(b"x"), Annotations::default(), "no label"),
        (copied(b"x"), boxed([0, 3, 1, 2]), "box [0, 3, 1, 2]"),
        (copied(b"x"), boxed([-1, 0, 1, 2]), "box [-1, 0, 1, 2]"),
        (copied(b"x"), same, "another image is called \"train/0\""),
        (FedImage::Copied(b"abcde", RAW), labelled(0), "5 values"),
        (FedImage::Lent(memory, 4..10, RAW), labelled(0), "outside"),
    ] {
        let error = feed.add(Split::Train, image, annotations).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("train image 1: "), "{text}");
        assert!(text.contains(reason), "{text}");
        assert_eq!(feed.len(Split::Train), 1);
    }
    let mut mixed = Feed::new(None);
    mixed.add(Split::Train, copied(b"x"), named("a")).unwrap();
    let error = mixed.add(Split::Train, copied(b"x"), labelled(0));
    assert!(error.unwrap_err().to_string().contains("some are names"));
    assert!(matches!(Feed::new(None).finish(), Err(Error::NothingFed)));
}

#[test]
fn nothing_is_read_once_the_flag_is_set() {
    let mut feed = Feed::new(None);
    feed.add(Split::Train, copied(b"x"), labelled(0)).unwrap();
    let source = feed.finish().unwrap();
    let item = &source.splits[0].1[0];
    let mut reader = source.reader();
    reader.read(item).unwrap();
    source.stop_flag().store(true, Ordering::Relaxed);
    assert!(matches!(reader.read(item), Err(Error::Stopped)));
}
