"""What end-to-end tests, benches and the demo share: kubectl, an installed Tenure, callers and their OpenAI clients."""
