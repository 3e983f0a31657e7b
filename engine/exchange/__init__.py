"""The simulated exchange: a matching engine with a flow of orders behind it, an ITCH publisher and an OUCH acceptor."""
