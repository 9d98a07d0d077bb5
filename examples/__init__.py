"""Programs that use Handfast as any application would."""
