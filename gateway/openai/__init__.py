"""OpenAI's API on the fleet: `/v1`. Programs for it run with another base URL."""

from gateway.openai.audio import router as audio
from gateway.openai.chat import router as chat
from gateway.openai.completions import router as completions
from gateway.openai.embeddings import router as embeddings
from gateway.openai.images import router as images
from gateway.openai.models import router as models
from gateway.openai.speech import router as speech

routers = (models, chat, completions, embeddings, audio, speech, images)
