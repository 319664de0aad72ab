"""The seq2seq controller: encode, predict, decode, ascend."""
