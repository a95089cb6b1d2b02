"""What a frozen prefix computes, once: networks cut in two, features kept, and heads solved on them."""
