use super::*;

#[test]
fn two_of_three_bring_the_secret_back() {
    let shares = split(b"top", 3, 2).unwrap();
    assert_eq!(combine(&shares[1..], 2).unwrap().expose(), b"top");
}
