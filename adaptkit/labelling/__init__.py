"""Labels that are worth their money: which rows people should label next, and labels that rules give."""
