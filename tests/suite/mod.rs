mod blocked;
mod bootstrap;
mod console;
mod house;
mod page;
mod server;
mod tools;
