"""Client secrets with the unmodified OpenAI SDK: one program mints them, another begins sessions."""

import openai
import peer
from peer import CHINESE, check, equal, that

MODEL = "gpt-realtime"


def client(key):
    return openai.OpenAI(base_url=peer.relay_url() + "/v1", api_key=key, max_retries=0)


def speak(connection, text):
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    connection.conversation.item.create(item=item)
    connection.response.create()
    said = ""
    for event in connection:
        if event.type == "response.output_text.delta":
            said += event.delta
        elif event.type == "response.done":
            return said


@check
def minted_and_used():
    session = {"type": "realtime", "model": MODEL, "instructions": CHINESE, "audio": {"output": {"voice": "marin"}}}
    expires_after = {"anchor": "created_at", "seconds": 60}
    secret = client(peer.relay_key()).realtime.client_secrets.create(session=session, expires_after=expires_after)
    that(secret.value.startswith("ek_"), "what SDKs of browsers take")
    equal(type(secret.session).__name__, "RealtimeSessionCreateResponse")
    equal((secret.session.type, secret.session.object, secret.session.model), ("realtime", "realtime.session", MODEL))
    equal((secret.session.instructions, secret.session.audio.output.voice), (CHINESE, "marin"))
    for _ in range(2):
        with client(secret.value).realtime.connect(model=MODEL) as connection:
            equal(connection.recv().type, "session.created")
            updated = connection.recv()
            equal((updated.type, updated.session.instructions), ("session.updated", CHINESE))
            equal(speak(connection, "one two"), "one two")


@check
def a_transcription_session():
    audio = {"input": {"transcription": {"model": "gpt-4o-transcribe", "language": "zh"}}}
    session = {"type": "transcription", "audio": audio}
    secret = client(peer.relay_key()).realtime.client_secrets.create(session=session)
    equal(type(secret.session).__name__, "RealtimeTranscriptionSessionCreateResponse")
    equal(secret.session.audio.input.transcription.model, "gpt-4o-transcribe")


@check
def a_translation_session():
    session = {"model": "gpt-realtime-translate", "audio": {"output": {"language": "zh"}}}
    secret = client(peer.relay_key()).realtime.translations.client_secrets.create(session=session)
    equal((secret.session.type, secret.session.audio.output.language), ("translation", "zh"))


@check
def refusals_are_the_sdk_s_errors():
    realtime = client(peer.relay_key()).realtime
    with peer.raises(openai.BadRequestError) as caught:
        realtime.client_secrets.create(session={"type": "realtime", "model": MODEL}, expires_after={"seconds": 5})
    that(caught.error.message.find("expires_after.seconds") >= 0, caught.error.message)
    secret = realtime.client_secrets.create(session={"type": "realtime", "model": MODEL})
    with peer.raises(openai.PermissionDeniedError) as caught:
        client(secret.value).models.list()
    equal(caught.error.code, "secret_scope")
    with peer.raises(openai.PermissionDeniedError) as caught:
        client(secret.value).realtime.client_secrets.create(session={"type": "realtime", "model": MODEL})
    equal(caught.error.code, "secret_scope")


if __name__ == "__main__":
    peer.run()
