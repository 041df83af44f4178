fn main() { println!("itoa {}", itoa::Buffer::new().format(42u8)); }
