"""A stand-in for a model endpoint: it speaks the OpenAI API and answers by script.

No model is in here. It is what tests and benches put in the place of one, in the cluster as a pod (`Dockerfile`) and in
a test's own process (`serving`). It keeps nothing but counts of its calls and who waits at a hold, and needs nothing
but uvicorn.

What the last user message says decides how it answers, so that tests that share it do not disturb one another. Words
of the form `tag:NAME` are taken out first; calls are counted under them.

| last user message                   | answer                                                                         |
|-------------------------------------|--------------------------------------------------------------------------------|
| `say: TEXT`                         | TEXT                                                                           |
| `echo`, `echo: TEXT`                | the message itself                                                             |
| `history`                           | JSON: the role and text of each message it was sent                            |
| `count-user`                        | how many user messages it was sent                                             |
| `which-model`                       | the name of the model that it was asked for                                    |
| `words: N`                          | N words                                                                        |
| `slow: MS: TEXT`                    | TEXT, MS milliseconds before each word                                         |
| `stall: SECONDS: TEXT`              | TEXT, after SECONDS                                                            |
| `stall-after: N: SECONDS: TEXT`     | TEXT, with a pause of SECONDS after N words                                    |
| `error: STATUS`                     | an error                                                                       |
| `error-times: KEY: N: STATUS: TEXT` | an error the first N times for KEY, then TEXT                                  |
| `cut: N: TEXT`                      | N words of TEXT, and then the connection breaks (before any answer for N = 0)  |
| `garbage`                           | 200 and something that is not JSON                                             |
| `wrong-type`                        | 200 and a web page                                                             |
| `endless-line`                      | 200 and a line that never ends                                                 |
| `plan: JSON`                        | a program of several rounds with calls of tools: see `program`                 |
| anything else                       | an answer drawn from the conversation: it remembers "my … is …"                |

| model                  | always                                                                                      |
|------------------------|---------------------------------------------------------------------------------------------|
| `down-STATUS`          | that error                                                                                  |
| `unauthorized`         | 401                                                                                         |
| `needs-key-KEY`        | 401 unless KEY is presented as bearer token                                                 |
| `slow-first[-SECONDS]` | that long before the first word; 30 s if not said                                           |
| `small-window-WORDS`   | 400 `context_length_exceeded` when all messages together have more words than that          |
| `garbage` `wrong-type` `endless-line` `cut-N` | as the directive of that name                                        |

Answers are cut at the output limit of the request, counting a word as a token. A conversation in which a call has no
result, or a result no call, is refused with 400. With `REQUIRE_API_KEY` set, all of `/v1` wants that key.

A call with a tag comes to two holds, which it passes unless a test has set them: `TAG/ROUND/before` it is answered, and
`TAG/ROUND/after` all is said but that the answer has ended; rounds are counted from 0 since the user's last message.

| inspection                                    |                                                                    |
|-----------------------------------------------|--------------------------------------------------------------------|
| `GET /control/calls[?tag=NAME]`               | what was called                                                    |
| `GET /control/refused[?tag=NAME]`             | conversations that were refused for calls and results that misfit  |
| `GET /control/hold?name=NAME`                 | calls that have `arrived`, that are `waiting`; whether it is `set` |
| `POST /control/hold?name=NAME`                | sets a hold                                                        |
| `POST /control/release?name=NAME[&drop=true]` | lets the calls at a hold go, or drops them; later ones pass        |
| `POST /control/reset`                         | forgets all this                                                   |
"""
