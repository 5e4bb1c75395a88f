"""pydantic models of the API's requests and answers: the one place where its bytes enter."""
