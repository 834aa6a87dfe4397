mod blocked;
mod bootstrap;
mod console;
mod embed;
mod house;
mod page;
mod server;
mod tools;
