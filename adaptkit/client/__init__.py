"""All HTTP to servers of models: what is asked (`openai`), over which connection (`connection`), bits per
byte from the answers (`likelihood`), and requests that a gateway hands on unread (`relay`)."""
