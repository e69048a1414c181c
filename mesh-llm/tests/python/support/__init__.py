"""What the tests share: servers, models, and ways to look at answers."""
