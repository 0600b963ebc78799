"""What runs in a front end: which rank a request goes to, and what ranks are known to hold."""
